"""Verdicts follow from the numbers and from the premises."""

import dataclasses

import pytest

from experiments.compact_robust import thresholds
from experiments.compact_robust.claims import CLAIMS
from experiments.compact_robust.presets import PRESETS
from experiments.compact_robust.questions import gap
from experiments.lab import claims
from repsim_fast.analysis.estimates import Estimate

SMOKE = PRESETS["smoke"]


def number(value, se=0.001):
    return {"value": value, "se": se}


def verdict(part, question, found, preset=SMOKE):
    (row,) = claims.judge([c for c in CLAIMS if part in c.text], {question: found}, preset)
    return row.verdict


def three(text, question, build, good, bad, preset=SMOKE):
    """A number on either side of the threshold, and one seed."""
    assert verdict(text, question, build(good), preset) == claims.HOLDS
    assert verdict(text, question, build(bad), preset) == claims.FAILS
    assert verdict(text, question, {**build(good), "seeds": 1}, preset) == claims.UNTESTABLE


@pytest.mark.parametrize(
    ("text", "way", "accuracy", "least"),
    [
        ("keeps benign", "magnitude", "benign", 0.93),
        ("keeps empirically", "magnitude", "era", 0.925),
        ("keeps verifiably", "magnitude", "vra", 0.85),
        ("learned scores keep more of it", "learned", "era", thresholds.KEPT_LEARNED),
    ],
)
def test_what_is_kept(text, way, accuracy, least):
    def found(value):
        low = {name: number(0.1) for name in ("benign", "era", "vra")}
        kept = {"magnitude": dict(low), "learned": dict(low)}
        kept[way][accuracy] = value and number(value)
        return {"seeds": 2, "kept": kept}

    three(text, "Q1", found, least + 0.001, least - 0.001)
    assert verdict(text, "Q1", found(None)) == claims.UNTESTABLE


@pytest.mark.parametrize(("text", "where"), [("pre-training", "before"), ("fine-tuning", "after")])
def test_the_objective_throughout(text, where):
    other = {"before": "after", "after": "before"}[where]

    def found(change, gained=0.3):
        return {
            "seeds": 2,
            "robust minus standard": {"era": number(gained)},
            f"minus standard {where}": {"era": number(change)},
            f"minus standard {other}": {"era": number(-1.0)},
        }

    three(f"{text} must have", "Q2", found, 0.02, 0.005)
    assert verdict(f"{text} must have", "Q2", found(0.02, gained=0.01)) == claims.UNTESTABLE


def gaps(focus, most, usual=(0.014, 0.05, 0.1)):
    return {
        "seeds": 2,
        "gaps": {"0.9": {"era": number(focus)}, "0.99": {"era": number(most)}},
        "usual": {
            s: {"era": number(v)} for s, v in zip(("0.9", "0.95", "0.99"), usual, strict=True)
        },
        "focus": "0.9",
        "most": "0.99",
        "growth": {"era": number(most - focus)},
        "networks": 3,
        "above chance": 2,
    }


def test_learned_scores():
    three("better than magnitude", "Q3", lambda v: gaps(0.5, v), 0.02, 0.005)
    three("gap grows", "Q3", lambda v: gaps(0.1, 0.1 + v), 0.02, -0.02)
    (row,) = claims.judge([c for c in CLAIMS if "better than" in c.text][:1], {"Q3": gaps(0, 0)},
                          SMOKE)  # fmt: skip
    assert row.found.endswith("at 0.99, 2 of 3 networks above chance")
    one = {**gaps(0.1, 0.2), "focus": "0.99"}
    assert verdict("gap grows", "Q3", one) == claims.UNTESTABLE


def test_what_is_above_chance():
    assert gap._exceeds(Estimate(0.121, 0.01), 0.1)
    assert not gap._exceeds(Estimate(0.119, 0.01), 0.1)  # within two standard errors
    assert not gap._exceeds(Estimate(0.09, 0.001), 0.1)


def test_published_values_are_expected_of_the_same_network_only():
    text, there = "absolute values of the gap", dataclasses.replace(SMOKE, absolute=True)
    assert verdict(text, "Q3", gaps(0, 0)) == claims.UNTESTABLE
    assert verdict(text, "Q3", gaps(0, 0), there) == claims.HOLDS
    assert verdict(text, "Q3", gaps(0, 0, (0.014, 0.05, 0.2)), there) == claims.FAILS


@pytest.mark.parametrize(
    ("text", "question", "name"),
    [
        ("pruning filters", "Q4", "weights minus filters"),
        ("round by round", "Q5", "iterative minus one shot"),
    ],
)
def test_ways_of_pruning(text, question, name):
    def found(value):
        changes = {"0.9": {"era": number(-1.0)}, "0.99": {"era": number(value)}}
        return {"seeds": 2, name: changes, "most": "0.99"}

    three(text, question, found, 0.02, 0.005)


def representations(**changes):
    usual = {
        "seeds": 2,
        "layers": 8,
        "standard minus robust": number(0.0),
        "rank correlation of losses": number(0.9),
        "trained further minus pruned": {"standard": number(1.0), "robust": number(0.0)},
        "pruned minus trained further": {
            kind: {"selectivity": number(0.0), "components 95": number(0.0)}
            for kind in ("standard", "robust")
        },
        "carried beyond images": {
            kind: {"attack": number(0.0), "noise": number(1.0)} for kind in ("standard", "robust")
        },
    }
    return {**usual, **changes}


def test_representations():
    def units(**own):
        both = {"selectivity": number(0.0), "components 95": number(0.0)}
        return {"standard": both, "robust": {**both, **own}}

    def carried(kind, value):
        usual = representations()["carried beyond images"]
        return {**usual, kind: {"attack": number(value), "noise": number(0.0)}}

    cases = {
        "more than further training": lambda v: {
            "trained further minus pruned": {"standard": number(-1.0), "robust": number(v)}
        },
        "changes robust networks more": lambda v: {"standard minus robust": number(v)},
        "lose other layers": lambda v: {"rank correlation of losses": number(0.5 - v)},
        "more class-selective": lambda v: {
            "pruned minus trained further": units(selectivity=number(v))
        },
        "fewer dimensions": lambda v: {
            "pruned minus trained further": units(**{"components 95": number(-v)})
        },
        "attacks on standard": lambda v: {"carried beyond images": carried("standard", v)},
        "attacks on robust": lambda v: {"carried beyond images": carried("robust", v)},
    }
    for text, change in cases.items():
        three(text, "Q6", lambda v, change=change: representations(**change(v)), 0.05, -0.05)
    few = representations(layers=4, **{"rank correlation of losses": number(0.0)})
    assert verdict("lose other layers", "Q6", few) == claims.UNTESTABLE


def test_noise_is_no_difference():
    found = representations(**{"standard minus robust": number(0.05, se=0.03)})
    assert verdict("changes robust networks more", "Q6", found) == claims.FAILS
