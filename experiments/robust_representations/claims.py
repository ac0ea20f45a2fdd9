"""The paper's claims, with thresholds fixed before any run, and their verdicts from the results.

Sources: READ are the abstract, the caption of Figure 2, a published review digest and the released
plot for WRN-28-4 on CIFAR-10 (digitised); RECALLED is what the paper is remembered to say.
A claim whose premises a run does not meet (no network was robust, nothing overfitted, one seed)
is "not testable at this scale", whatever its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .presets import Preset

HOLDS, FAILS, UNTESTABLE = "holds", "does not", "not testable at this scale"

# A difference of CKA that matters: the pass criterion suggested by the released plot (0.70 - 0.51).
CKA_GAP = 0.1
STAGE13_RATIO = 2.0  # the released plot has .56 / .27
SIGNIFICANT = 0.05  # reached by three against three seeds only if they separate
BLOCK_RATIO = 0.5  # "disappears": at most half of the block index is left
UNCHANGED = 0.9  # CKA of early layers, benign with adversarial, that "hardly change"
DEEPER = 1.5  # deeper layers change this many times more than early ones
SMALL_TREND = 0.02  # rise of mean CKA over a sweep, at least, besides two standard errors
SIGMAS = 2.0
STILL_ALIKE = 0.6  # "still high" CKA between lp and transformation threat models
RANKS_AGREE = 0.7  # Spearman correlation of two measures' grids
ABSOLUTE = 0.1  # tolerance around digitised values, for the same network and data
# Premises.
ROBUSTNESS_GAIN = 0.1  # robust accuracy of a robust network above that of a standard one
OVERFITTED = 0.01  # loss of robust accuracy after the best epoch, besides two standard errors
PUBLISHED_OFF_DIAGONAL = {"standard": 0.507, "robust": 0.698}


@dataclass(frozen=True)
class Row:
    """One claim of the table."""

    claim: str
    source: str
    expected: str
    found: str
    evidence: str
    verdict: str


Results = Mapping[str, Any]
Judged = tuple[str, bool]
Judge = Callable[[Results, Preset], Judged]


class NotTestable(Exception):
    """A premise of the claim is not met; the message says which."""


@dataclass(frozen=True)
class Claim:
    """A claim, the question that answers it, and how."""

    text: str
    source: str
    expected: str
    question: str
    evidence: str
    judge: Judge


def judge(results: Results, preset: Preset) -> list[Row]:
    """All claims against findings {question: findings}; questions that were not run are said."""
    rows = []
    for claim in CLAIMS:
        try:
            if claim.question not in results:
                raise NotTestable(f"{claim.question} was not run")
            found, holds = claim.judge(results[claim.question], preset)
            verdict = HOLDS if holds else FAILS
        except NotTestable as reason:
            found, verdict = str(reason), UNTESTABLE
        rows.append(Row(claim.text, claim.source, claim.expected, found, claim.evidence, verdict))
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    lines = [
        "| claim | source | expected | found | evidence | verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(asdict(row).values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _text(estimate: Mapping[str, Any]) -> str:
    se = estimate["se"]
    return f"{_known(estimate):.3f}" + ("" if se is None else f" ± {se:.3f}")


def _known(estimate: Mapping[str, Any] | None) -> float:
    if estimate is None or estimate["value"] is None:
        raise NotTestable("a number is undefined or was not computed")
    return float(estimate["value"])


def _clear(estimate: Mapping[str, Any], least: float) -> bool:
    """Above the threshold, and above 0 by more than noise where its size is known."""
    return _known(estimate) > least and _known(estimate) > SIGMAS * (estimate["se"] or 0.0)


def _robust_enough(q1: Results) -> None:
    """Raises unless each robust network is more robust than each standard one."""
    own = {name: float(a["robust accuracy"]["value"]) for name, a in q1["accuracy"].items()}
    robust = min(v for name, v in own.items() if name.startswith("robust"))
    standard = max(v for name, v in own.items() if name.startswith("standard"))
    if robust - standard < ROBUSTNESS_GAIN:
        raise NotTestable(
            f"robust networks reach {robust:.2f} under attack, standard ones {standard:.2f}"
        )


def _off_diagonal(q: Results, preset: Preset) -> Judged:
    _robust_enough(q)
    gap = q["difference"]["mean off-diagonal"]
    found = " / ".join(_text(q[k]["mean off-diagonal"]) for k in ("robust", "standard"))
    return f"{found}; difference {_text(gap)}", _clear(gap, CKA_GAP)


def _stage13(q: Results, preset: Preset) -> Judged:
    _robust_enough(q)
    robust, standard = (_known(q[k]["stage1-stage3"]) for k in ("robust", "standard"))
    ratio = q["robust / standard"]["stage1-stage3"]
    found = f"{robust:.3f} / {standard:.3f}"
    if standard <= 0:
        return f"{found}, not positive", robust > 0
    return f"{found} = {_text(ratio)}", _known(ratio) >= STAGE13_RATIO


def _long_range(q: Results, preset: Preset) -> Judged:
    _robust_enough(q)
    gap = q["difference"]["long range"]
    return f"difference {_text(gap)}", _clear(gap, CKA_GAP)


def _blocks(q: Results, preset: Preset) -> Judged:
    tested = q["block structure"]["block index"]
    robust, standard = (_known(tested[kind]) for kind in ("robust", "standard"))
    p = tested["p over seeds"]
    found = (
        f"block index {_text(tested['robust'])} / {_text(tested['standard'])}, p over seeds {p:.3f}"
    )
    if len(tested["networks"]["robust"]) < 3:
        raise NotTestable(f"needs three seeds of each kind; {found}")
    if not _clear(tested["standard"], 0.0):
        raise NotTestable(f"the standard networks have no blocks beyond noise: {found}")
    return found, p <= SIGNIFICANT and robust <= BLOCK_RATIO * standard


def _between_kinds(q: Results, preset: Preset) -> Judged:
    _robust_enough(q)
    if "robust-robust" not in q["same layer"]:
        raise NotTestable("needs two seeds of each kind")
    own = [q["same layer"][k] for k in ("standard-standard", "robust-robust")]
    between = q["same layer"]["standard-robust"]
    found = f"{_text(between)} against " + " and ".join(map(_text, own))
    return found, _known(between) < min(map(_known, own)) - CKA_GAP


def _absolute(q: Results, preset: Preset) -> Judged:
    found = {k: _known(q[k]["mean off-diagonal"]) for k in PUBLISHED_OFF_DIAGONAL}
    text = ", ".join(f"{k} {v:.3f}" for k, v in found.items())
    if not preset.absolute:
        raise NotTestable(f"another network or data set; {text}")
    return text, all(abs(found[k] - v) <= ABSOLUTE for k, v in PUBLISHED_OFF_DIAGONAL.items())


def _hardly_change(q: Results, preset: Preset) -> Judged:
    early = q["means"]["robust"]["stage1"]
    return f"stage 1: {_text(early)}", _known(early) >= UNCHANGED


def _fall(q: Results, preset: Preset) -> Judged:
    falls = q["fall with depth"]
    found = "stage 1 minus stage 3: " + ", ".join(f"{k} {_text(e)}" for k, e in falls.items())
    return found, _clear(falls["standard minus robust"], CKA_GAP)


def _deeper_overfit(q: Results, preset: Preset) -> Judged:
    best, last = (_known(q["robust accuracy"][at]) for at in ("best", "last"))
    change = q["change"]["test"]
    early, deep = _known(change["stage1"]), _known(change["stage3"])
    found = (
        f"1 - CKA(best, last): stage 1 {_text(change['stage1'])}, stage 3 "
        f"{_text(change['stage3'])}; robust accuracy {best:.3f} to {last:.3f}"
    )
    # Of two accuracies on n images; a few images must not count as overfitting.
    noise = (2 * best * (1 - best) / q["evaluated images"]) ** 0.5
    if best - last < max(OVERFITTED, SIGMAS * noise):
        raise NotTestable(
            f"robust accuracy did not fall beyond noise after its best epoch; {found}"
        )
    return found, deep >= DEEPER * early and _clear(change["stage3 minus stage1"], 0.0)


def _threats(q: Results, preset: Preset) -> Judged:
    between, standard = q["between threats"], q["with standard"]
    found = f"between threat models {_text(between)}, with standard {_text(standard)}" + (
        f", seed to seed {_text(q['seed to seed'])}" if q["seed to seed"] else ""
    )
    if not q["seed to seed"]:
        raise NotTestable(f"needs two seeds; {found}")
    alike = _known(between) >= _known(q["seed to seed"]) - CKA_GAP
    return found, alike and _known(between) > _known(standard)


def _transformations(q: Results, preset: Preset) -> Judged:
    mixed = q["lp with transformations"]
    return _text(mixed), _known(mixed) >= STILL_ALIKE


def _beyond_seeds(trend: Mapping[str, Any], seeds: Mapping[str, Any], found: str) -> Judged:
    """A difference of two networks of one seed each counts beyond what another seed would do."""
    if seeds["value"] is None:
        raise NotTestable(f"needs two seeds; {found}")
    found = f"{found}; by another seed alone {_text(seeds)}"
    return found, _clear(trend, max(SMALL_TREND, SIGMAS * _known(seeds)))


def _width(q: Results, preset: Preset) -> Judged:
    found = "; ".join(f"{kind} {_text(q['widths'][kind])}" for kind in ("robust", "standard"))
    found = f"widest minus narrowest: {found}"
    return _beyond_seeds(q["widths"]["robust"], q["seed to seed"]["robust"], found)


def _radius(q: Results, preset: Preset) -> Judged:
    gap = q["largest minus smallest radius"]
    return _beyond_seeds(gap, q["seed to seed"], f"largest minus smallest: {_text(gap)}")


def _converge(q: Results, preset: Preset) -> Judged:
    lead = q["robust"]["lead of stage1 over stage3"]
    # The first network kept after the initialisation.
    epoch = next((e for e in lead if int(e) > 0), None)
    if epoch is None:
        raise NotTestable("no network was kept during training")
    return f"after epoch {epoch}: stage 1 leads by {_text(lead[epoch])}", _clear(
        lead[epoch], SMALL_TREND
    )


def _measures(q: Results, preset: Preset) -> Judged:
    found = q["rank correlation with CKA"]
    every = {f"{kind} {m}": e for kind, own in found.items() for m, e in own.items()}
    lowest = min(every, key=lambda name: _known(every[name]))
    text = f"lowest: {lowest} {_text(every[lowest])}"
    return text, _known(every[lowest]) >= RANKS_AGREE


def _in_place(q: Results, preset: Preset) -> Judged:
    gaps = [own["largest row difference, norm and ReLU"] for own in q["in place"].values()]
    published = max(_known(g["published"]) for g in gaps)
    correct = min((g["correct"] for g in gaps), key=_known)
    found = f"largest row difference {published:.1g} as published, {_text(correct)} when cloned"
    return found, published < 1e-6 < _known(correct)


def _exact_drops(q: Results, preset: Preset) -> Judged:
    raise NotTestable("no table of the paper was available to compare with")


CLAIMS = (
    Claim(
        "robust layers are less specialised: cross-layer similarity is amplified",
        "READ (abstract, Fig. 2a-c)",
        f"mean off-diagonal CKA robust - standard > {CKA_GAP}",
        "Q1", "Q1_differences.csv", _off_diagonal,
    ),
    Claim(
        "stage 1 stays similar to stage 3",
        "DIGITISED (released plot: .56 / .27)",
        f"stage 1-3 mean CKA, robust / standard >= {STAGE13_RATIO}",
        "Q1", "Q1_differences.csv", _stage13,
    ),
    Claim(
        "similarity is amplified even at long range",
        "READ (Fig. 2 caption)",
        f"layers half a network apart: robust - standard > {CKA_GAP}",
        "Q1", "Q1_differences.csv", _long_range,
    ),
    Claim(
        "the block structure of standard networks disappears",
        "READ (abstract, Fig. 2)",
        f"block index robust <= {BLOCK_RATIO} x standard, p over seeds <= {SIGNIFICANT}",
        "Q9", "Q9_tests.csv", _blocks,
    ),
    Claim(
        "similarity between a standard and a robust network is poor",
        "READ (Fig. 2d)",
        f"same-layer CKA below both seed-to-seed values by > {CKA_GAP}",
        "Q1", "Q1_same_layer.csv", _between_kinds,
    ),
    Claim(
        "absolute values of the released plot",
        "DIGITISED (WRN-28-4, CIFAR-10)",
        f"mean off-diagonal .507 and .698, within {ABSOLUTE}",
        "Q1", "Q1_structure.csv", _absolute,
    ),
    Claim(
        "early layers of robust networks hardly change between benign and perturbed inputs",
        "READ (review digest)",
        f"stage 1 CKA at the training radius >= {UNCHANGED}",
        "Q2", "Q2_over_seeds.csv", _hardly_change,
    ),
    Claim(
        "benign-adversarial CKA falls with depth much more in standard networks",
        "RECALLED med",
        f"fall stage 1 to 3, standard - robust > {CKA_GAP} and {SIGMAS:g} se",
        "Q2", "Q2_over_seeds.csv", _fall,
    ),
    Claim(
        "exact drops of benign-adversarial CKA",
        "RECALLED lo",
        "none stated",
        "Q2", "Q2_stages.csv", _exact_drops,
    ),
    Claim(
        "overfitting in robust training mostly hits deeper layers",
        "READ (abstract)",
        f"change of stage 3, best to last epoch, >= {DEEPER} x that of stage 1",
        "Q3", "Q3_change.csv", _deeper_overfit,
    ),
    Claim(
        "networks trained against different threat models have similar representations",
        "READ (review digest)",
        f"same-layer CKA within {CKA_GAP} of seed to seed, and above that with standard",
        "Q6", "Q6_groups.csv", _threats,
    ),
    Claim(
        "threat models that look different (snow, jpeg, gabor, tr) still give high CKA with lp",
        "RECALLED med",
        f"mean same-layer CKA >= {STILL_ALIKE}",
        "Q6", "Q6_groups.csv", _transformations,
    ),
    Claim(
        "more width raises cross-layer similarity",
        "RECALLED med",
        f"widest - narrowest robust network > {SMALL_TREND}, {SIGMAS:g} se and "
        f"{SIGMAS:g} sd from seed to seed",
        "Q4", "Q4_trends.csv", _width,
    ),
    Claim(
        "a larger training radius raises cross-layer similarity",
        "RECALLED med",
        f"largest - smallest radius > {SMALL_TREND}, {SIGMAS:g} se and "
        f"{SIGMAS:g} sd from seed to seed",
        "Q5", "Q5_trend.csv", _radius,
    ),
    Claim(
        "early layers converge first in robust training",
        "RECALLED med",
        f"first kept epoch: stage 1 nearer its end than stage 3 by > {SMALL_TREND} and "
        f"{SIGMAS:g} se",
        "Q7", "Q7_stages.csv", _converge,
    ),
    Claim(
        "CCA, SVCCA, PWCCA and Procrustes agree with CKA",
        "RECALLED med",
        f"rank correlation of each grid >= {RANKS_AGREE}",
        "Q8", "Q8_rank_correlations.csv", _measures,
    ),
    Claim(
        "published maps show each norm layer as the ReLU after it (in-place ReLU)",
        "READ (released code), DIGITISED",
        "rows equal with their hooks, different when cloned",
        "Q9", "Q9_in_place.csv", _in_place,
    ),
)  # fmt: skip
