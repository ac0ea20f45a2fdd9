"""How each claim is judged from the findings of its question; ``claims`` says which is which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.lab.claims import (
    SIGMAS,
    Findings,
    Judged,
    NotTestable,
    beyond_noise,
    clear,
    in_words,
    known,
)

from .presets import Preset
from .thresholds import (
    ABSOLUTE,
    AMPLIFIED,
    BEYOND_ORDINARY,
    BLOCK_RATIO,
    CKA_GAP,
    COMPONENT,
    DEEPER,
    OVERFITTED,
    PROVOKED,
    PUBLISHED_OFF_DIAGONAL,
    RANKS_AGREE,
    ROBUSTNESS_GAIN,
    SIGNIFICANT,
    SMALL_TREND,
    STAGE13_RATIO,
    STILL_ALIKE,
    UNCHANGED,
)


def _robust_enough(q1: Findings) -> None:
    """Raises unless each robust network is more robust than each standard one."""
    own = {name: float(a["robust accuracy"]["value"]) for name, a in q1["accuracy"].items()}
    robust = min(v for name, v in own.items() if name.startswith("robust"))
    standard = max(v for name, v in own.items() if name.startswith("standard"))
    if robust - standard < ROBUSTNESS_GAIN:
        raise NotTestable(
            f"robust networks reach {robust:.2f} under attack, standard ones {standard:.2f}"
        )


def off_diagonal(q: Findings, preset: Preset) -> Judged:
    _robust_enough(q)
    gap = q["difference"]["mean off-diagonal"]
    found = " / ".join(in_words(q[k]["mean off-diagonal"]) for k in ("robust", "standard"))
    return f"{found}; difference {in_words(gap)}", clear(gap, CKA_GAP)


def stage13(q: Findings, preset: Preset) -> Judged:
    _robust_enough(q)
    robust, standard = (known(q[k]["stage1-stage3"]) for k in ("robust", "standard"))
    ratio = q["robust / standard"]["stage1-stage3"]
    found = f"{robust:.3f} / {standard:.3f}"
    if standard <= 0:
        return f"{found}, not positive", robust > 0
    return f"{found} = {in_words(ratio)}", known(ratio) >= STAGE13_RATIO


def long_range(q: Findings, preset: Preset) -> Judged:
    _robust_enough(q)
    gap = q["difference"]["long range"]
    return f"difference {in_words(gap)}", clear(gap, CKA_GAP)


def blocks(q: Findings, preset: Preset) -> Judged:
    return _blocks(q, "block index")


def blocks_of_makers(q: Findings, preset: Preset) -> Judged:
    return _blocks(q, "block index, making stage")


def blocks_of_stream(q: Findings, preset: Preset) -> Judged:
    return _blocks(q, "block index, residual stream")


def borders(q: Findings, preset: Preset) -> Judged:
    p = q["borders"]["p of a border"]
    have = {kind: sum(value <= SIGNIFICANT for value in own) for kind, own in p.items()}
    counts = ", ".join(f"{have[kind]} of {len(own)} {kind}" for kind, own in p.items())
    found = f"networks with a border: {counts}"
    if have["standard"] < len(p["standard"]):
        raise NotTestable(f"not every standard network has a border; {found}")
    return found, not have["robust"]


def component(q: Findings, preset: Preset) -> Judged:
    own = q["first component"]["standard"]
    before, after = own["block index, as it is"], own["block index, without the first component"]
    found = (
        f"block index {in_words(before)}, without the first component {in_words(after)}; its share "
        f"of variance {in_words(own['share'])}"
    )
    if before["se"] is None or not beyond_noise(before):
        raise NotTestable(f"the standard networks have no blocks beyond noise: {found}")
    return found, known(after) <= COMPONENT * known(before)


def amplified(q: Findings, preset: Preset) -> Judged:
    gained = q["trained minus untrained"]
    if gained["robust"] is None or gained["robust"]["se"] is None:
        raise NotTestable("needs untrained networks of two seeds")
    found = ", ".join(f"{kind} {in_words(e)}" for kind, e in gained.items())
    return f"trained minus untrained: {found}", clear(gained["robust"], AMPLIFIED)


def _blocks(q: Findings, index: str) -> Judged:
    tested = q["block structure"][index]
    robust, standard = (known(tested[kind]) for kind in ("robust", "standard"))
    p = tested["p over seeds"]
    found = " / ".join(in_words(tested[kind]) for kind in ("robust", "standard"))
    found = f"block index {found}, p over seeds {p:.3f}"
    if len(tested["networks"]["robust"]) < 3:
        raise NotTestable(f"needs three seeds of each kind; {found}")
    if not beyond_noise(tested["standard"]):
        raise NotTestable(f"the standard networks have no blocks beyond noise: {found}")
    return found, p <= SIGNIFICANT and robust <= BLOCK_RATIO * standard


def between_kinds(q: Findings, preset: Preset) -> Judged:
    _robust_enough(q)
    if "robust-robust" not in q["same layer"]:
        raise NotTestable("needs two seeds of each kind")
    own = [q["same layer"][k] for k in ("standard-standard", "robust-robust")]
    between = q["same layer"]["standard-robust"]
    found = f"{in_words(between)} against " + " and ".join(map(in_words, own))
    return found, known(between) < min(map(known, own)) - CKA_GAP


def absolute(q: Findings, preset: Preset) -> Judged:
    found = {k: known(q[k]["mean off-diagonal"]) for k in PUBLISHED_OFF_DIAGONAL}
    numbers = ", ".join(f"{k} {v:.3f}" for k, v in found.items())
    if not preset.absolute:
        raise NotTestable(f"another network or data set; {numbers}")
    return numbers, all(abs(found[k] - v) <= ABSOLUTE for k, v in PUBLISHED_OFF_DIAGONAL.items())


def hardly_change(q: Findings, preset: Preset) -> Judged:
    early = {kind: q["means"][kind]["stage1"] for kind in ("robust", "standard")}
    found = ", ".join(f"{kind} {in_words(e)}" for kind, e in early.items())
    return f"stage 1: {found}", known(early["robust"]) >= UNCHANGED


def fall(q: Findings, preset: Preset) -> Judged:
    falls = q["fall with depth"]
    found = "stage 1 minus stage 3: " + ", ".join(f"{k} {in_words(e)}" for k, e in falls.items())
    return found, clear(falls["standard minus robust"], CKA_GAP)


def deeper_overfit(q: Findings, preset: Preset) -> Judged:
    return _deeper(q, OVERFITTED)


def deeper_provoked(q: Findings, preset: Preset) -> Judged:
    return _deeper(q, PROVOKED)


def deeper_than_ordinary(q: Findings, preset: Preset) -> Judged:
    _deeper(q, PROVOKED)  # its premises
    ordinary, own = q.get("ordinary"), q["change"]["test"]
    if not ordinary:
        raise NotTestable("needs networks that are kept late in the usual robust training")
    ratio = "stage3 / stage1"
    found = f"{ratio}: {in_words(own[ratio])}, without overfitting {in_words(ordinary[ratio])}"
    enough = known(own[ratio]) >= BEYOND_ORDINARY * known(ordinary[ratio])
    return found, enough and clear(ordinary[f"{ratio}, overfitting minus this"], 0.0)


def _deeper(q: Findings, least: float) -> Judged:
    best, last = (known(q["robust accuracy"][at]) for at in ("best", "last"))
    change = q["change"]["test"]
    early, deep = known(change["stage1"]), known(change["stage3"])
    found = (
        f"1 - CKA(best, last): stage 1 {in_words(change['stage1'])}, stage 3 "
        f"{in_words(change['stage3'])}; robust accuracy {best:.3f} to {last:.3f}"
    )
    # Of two accuracies on n images; a few images must not count as overfitting.
    noise = (2 * best * (1 - best) / q["evaluated images"]) ** 0.5
    if best - last < max(least, SIGMAS * noise):
        raise NotTestable(
            f"robust accuracy did not fall by {least:g} and beyond noise after its best epoch; "
            f"{found}"
        )
    return found, deep >= DEEPER * early and clear(change["stage3 minus stage1"], 0.0)


def threats(q: Findings, preset: Preset) -> Judged:
    between, standard = q["between threats"], q["with standard"]
    found = f"between threat models {in_words(between)}, with standard {in_words(standard)}" + (
        f", seed to seed {in_words(q['seed to seed'])}" if q["seed to seed"] else ""
    )
    if not q["seed to seed"]:
        raise NotTestable(f"needs two seeds; {found}")
    _robust_to_its_own(q, found)
    alike = known(between) >= known(q["seed to seed"]) - CKA_GAP
    return found, alike and known(between) > known(standard)


def transformations(q: Findings, preset: Preset) -> Judged:
    mixed, standard = q["lp with transformations"], q["with standard"]
    found = f"{in_words(mixed)}, with standard {in_words(standard)}"
    _robust_to_its_own(q, found)
    return found, known(mixed) >= STILL_ALIKE


def above_standard(q: Findings, preset: Preset) -> Judged:
    gap = q["above those with standard"]["lp with transformations"]
    found = f"above pairs with a standard network by {in_words(gap)}"
    _robust_to_its_own(q, found)
    return found, clear(gap, SMALL_TREND)


def _robust_to_its_own(q: Findings, found: str) -> None:
    """Raises unless each network is more robust to its threat than the standard network is."""
    gained = {threat: known(e) for threat, e in q["robustness gained"].items()}
    least = min(gained, key=lambda threat: gained[threat])
    if gained[least] < ROBUSTNESS_GAIN:
        raise NotTestable(f"robustness to {least} rose by {gained[least]:.2f} alone; {found}")


def _beyond_seeds(trend: Mapping[str, Any], seeds: Mapping[str, Any], found: str) -> Judged:
    """A difference of two networks of one seed each counts beyond what another seed would do."""
    if seeds["value"] is None:
        raise NotTestable(f"needs two seeds; {found}")
    found = f"{found}; by another seed alone {in_words(seeds)}"
    noise = SIGMAS * known(seeds)
    if known(trend) <= noise > SMALL_TREND:  # a trend of the size that counts would drown
        raise NotTestable(f"seeds differ by as much as the trend that is looked for; {found}")
    return found, clear(trend, max(SMALL_TREND, noise))


def width(q: Findings, preset: Preset) -> Judged:
    found = "; ".join(f"{kind} {in_words(q['widths'][kind])}" for kind in ("robust", "standard"))
    found = f"widest minus narrowest: {found}"
    return _beyond_seeds(q["widths"]["robust"], q["seed to seed"]["robust"], found)


def radius(q: Findings, preset: Preset) -> Judged:
    gap = q["largest minus smallest radius"]
    return _beyond_seeds(gap, q["seed to seed"], f"largest minus smallest: {in_words(gap)}")


def converge(q: Findings, preset: Preset) -> Judged:
    lead = q["robust"]["lead of stage1 over stage3"]
    # The first network kept after the initialisation.
    epoch = next((e for e in lead if int(e) > 0), None)
    if epoch is None:
        raise NotTestable("no network was kept during training")
    return f"after epoch {epoch}: stage 1 leads by {in_words(lead[epoch])}", clear(
        lead[epoch], SMALL_TREND
    )


def converge_by_share(q: Findings, preset: Preset) -> Judged:
    lead = q["robust"]["lead in share of the way"]
    epoch = next((e for e in lead if int(e) > 0), None)
    if epoch is None or "0" not in lead:
        raise NotTestable("needs the untrained network and one that was kept during training")
    found = f"after epoch {epoch}: stage 1 leads by {in_words(lead[epoch])} of the way"
    return found, clear(lead[epoch], SMALL_TREND)


def measures(q: Findings, preset: Preset) -> Judged:
    agreement = q["rank correlation with CKA"]
    every = {f"{kind} {m}": e for kind, own in agreement.items() for m, e in own.items()}
    lowest = min(every, key=lambda name: known(every[name]))
    found = f"lowest: {lowest} {in_words(every[lowest])}"
    return found, known(every[lowest]) >= RANKS_AGREE


def in_place(q: Findings, preset: Preset) -> Judged:
    gaps = [own["largest row difference, norm and ReLU"] for own in q["in place"].values()]
    published = max(known(g["published"]) for g in gaps)
    correct = min((g["correct"] for g in gaps), key=known)
    found = f"largest row difference {published:.1g} as published, {in_words(correct)} when cloned"
    return found, published < 1e-6 < known(correct)


def exact_drops(q: Findings, preset: Preset) -> Judged:
    raise NotTestable("no table of the paper was available to compare with")
