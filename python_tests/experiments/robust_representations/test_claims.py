"""Verdicts follow from the numbers and from the premises."""

import dataclasses

import pytest

from experiments.lab import claims
from experiments.robust_representations import judges
from experiments.robust_representations.claims import CLAIMS
from experiments.robust_representations.presets import PRESETS


def number(value, se=0.01):
    return {"value": value, "se": se}


def structure(standard=0.5, robust=0.7, robust_accuracy=0.5):
    kinds = {"standard": standard, "robust": robust}
    accuracy = {
        "standard 0": {"robust accuracy": number(0.0)},
        "robust 0": {"robust accuracy": number(robust_accuracy)},
    }
    gap = number(robust - standard)
    return {
        **{
            k: {"mean off-diagonal": number(v), "stage1-stage3": number(v)}
            for k, v in kinds.items()
        },
        "accuracy": accuracy,
        "difference": {"mean off-diagonal": gap, "long range": gap},
        "robust / standard": {"stage1-stage3": number(robust / standard, 0.1)},
        "same layer": {
            "standard-standard": number(0.8),
            "robust-robust": number(0.85),
            "standard-robust": number(0.6),
        },
    }


def verdicts(results, preset=PRESETS["smoke"]):
    return {row.claim: row.verdict for row in claims.judge(CLAIMS, results, preset)}


SPECIALISED = "robust layers are less specialised: cross-layer similarity is amplified"
ABSOLUTE = "absolute values of the released plot"
OVERFITTING = "overfitting in robust training mostly hits deeper layers"
RADIUS = "a larger training radius raises cross-layer similarity"
STREAM = "block structure disappears from the residual stream"
BLOCKS = "the block structure of standard networks disappears"


@pytest.mark.parametrize(("robust", "verdict"), [(0.7, claims.HOLDS), (0.55, claims.FAILS)])
def test_the_threshold_decides(robust, verdict):
    assert verdicts({"Q1": structure(robust=robust)})[SPECIALISED] == verdict


def test_a_network_that_is_not_robust_tests_nothing():
    found = verdicts({"Q1": structure(robust_accuracy=0.05)})
    assert found[SPECIALISED] == claims.UNTESTABLE


def test_a_difference_within_its_noise_is_not_one():
    noisy = structure()
    noisy["difference"]["mean off-diagonal"] = number(0.2, se=0.15)
    assert verdicts({"Q1": noisy})[SPECIALISED] == claims.FAILS


def test_absolute_values_are_expected_of_the_same_network_only():
    results = {"Q1": structure(standard=0.507, robust=0.698)}
    assert verdicts(results)[ABSOLUTE] == claims.UNTESTABLE
    assert verdicts(results, PRESETS["gpu"])[ABSOLUTE] == claims.HOLDS
    other = dataclasses.replace(PRESETS["gpu"], absolute=False)
    assert verdicts(results, other)[ABSOLUTE] == claims.UNTESTABLE


@pytest.mark.parametrize(
    ("last", "deep", "images", "verdict"),
    [
        (0.4, 0.4, 1000, claims.HOLDS),
        (0.4, 0.12, 1000, claims.FAILS),
        (0.5, 0.4, 1000, claims.UNTESTABLE),
        (0.46, 0.4, 5000, claims.HOLDS),
        (0.4, 0.4, 50, claims.UNTESTABLE),
    ],
)
def test_overfitting_needs_a_loss_of_robust_accuracy(last, deep, images, verdict):
    change = {
        "stage1": number(0.1),
        "stage3": number(deep),
        "stage3 minus stage1": number(deep - 0.1),
    }
    found = {
        "robust accuracy": {"best": number(0.5), "last": number(last)},
        "change": {"test": change},
        "evaluated images": images,
    }
    judged = verdicts({"Q3": found})
    assert judged[OVERFITTING] == verdict
    provoked = verdict if last < 0.45 else claims.UNTESTABLE
    assert judged["overfitting of 5 points, provoked, mostly hits deeper layers"] == provoked


@pytest.mark.parametrize(
    ("robust", "p", "verdict"),
    [
        (0.05, 0.05, claims.HOLDS),
        (0.15, 0.05, claims.FAILS),
        (0.05, 0.1, claims.FAILS),
    ],
)
def test_blocks_must_halve_significantly(robust, p, verdict):
    tested = {
        "robust": number(robust),
        "standard": number(0.2),
        "p over seeds": p,
        "networks": {"robust": [number(robust)] * 3},
    }
    gaps = {
        "largest row difference, norm and ReLU": {"published": number(0.0), "correct": number(0.2)}
    }
    found = {
        "block structure": dict.fromkeys(
            ("block index", "block index, making stage", "block index, residual stream"), tested
        ),
        "borders": {"p of a border": {"standard": [0.01], "robust": [0.5]}},
        "first component": {
            "standard": {
                "share": number(0.4),
                "block index, as it is": number(0.2),
                "block index, without the first component": number(robust),
            }
        },
        "in place": {"standard": gaps},
    }
    judged = verdicts({"Q9": found})
    assert judged[BLOCKS] == judged[STREAM] == verdict
    rests = claims.HOLDS if robust <= 0.1 else claims.FAILS
    assert judged["blocks of standard networks rest on a dominant first component"] == rests


@pytest.mark.parametrize(
    ("standard", "robust", "verdict"),
    [
        ([0.01, 0.02], [0.4, 0.2], claims.HOLDS),
        ([0.01, 0.02], [0.4, 0.01], claims.FAILS),
        ([0.01, 0.2], [0.4, 0.3], claims.UNTESTABLE),
    ],
)
def test_borders_of_every_standard_network_and_of_no_robust_one(standard, robust, verdict):
    found = {"borders": {"p of a border": {"standard": standard, "robust": robust}}}
    judged, holds = None, None
    try:
        judged, holds = judges.borders(found, PRESETS["smoke"])
    except claims.NotTestable:
        assert verdict == claims.UNTESTABLE
    else:
        assert verdict == (claims.HOLDS if holds else claims.FAILS)
        assert "2 of 2 standard" in judged


@pytest.mark.parametrize(
    ("robust", "verdict"),
    [
        (number(0.05), claims.HOLDS),
        (number(0.03, 0.02), claims.FAILS),
        (number(-0.05), claims.FAILS),
        (number(0.05, None), claims.UNTESTABLE),
        (None, claims.UNTESTABLE),
    ],
)
def test_amplified_is_more_than_untrained(robust, verdict):
    gained = {"standard": number(-0.2), "robust": robust}
    lead = {"0": number(0.0), "1": number(0.1)}
    found = {
        "trained minus untrained": gained,
        "robust": {"lead of stage1 over stage3": lead, "lead in share of the way": lead},
    }
    name = "robust training amplifies similarity across layers, rather than keeping it"
    assert verdicts({"Q7": found})[name] == verdict


@pytest.mark.parametrize(
    ("gap", "seeds", "verdict"),
    [
        (0.05, 0.01, claims.HOLDS),
        (0.05, 0.03, claims.UNTESTABLE),
        (-0.003, 0.012, claims.UNTESTABLE),
        (0.015, 0.001, claims.FAILS),
        (0.05, None, claims.UNTESTABLE),
    ],
)
def test_a_trend_must_be_larger_than_what_another_seed_does(gap, seeds, verdict):
    found = {"largest minus smallest radius": number(gap, 0.005), "seed to seed": number(seeds)}
    assert verdicts({"Q5": found})[RADIUS] == verdict


WAY = "early layers converge first, of the way that each has to go"


@pytest.mark.parametrize(
    ("lead", "verdict"),
    [
        ({"0": number(0.0), "2": number(0.1), "4": number(-0.1)}, claims.HOLDS),
        ({"0": number(0.0), "2": number(-0.1), "4": number(0.1)}, claims.FAILS),
        ({"0": number(0.0)}, claims.UNTESTABLE),
        ({"2": number(0.1)}, claims.UNTESTABLE),
    ],
)
def test_converging_first_is_of_the_way_from_an_untrained_network(lead, verdict):
    # That stage 1 is nearer its end all along is known of untrained networks.
    nearer = {epoch: number(0.5) for epoch in lead}
    found = {
        "trained minus untrained": dict.fromkeys(("standard", "robust"), number(0.1)),
        "robust": {"lead of stage1 over stage3": nearer, "lead in share of the way": lead},
    }
    assert verdicts({"Q7": found})[WAY] == verdict


CONTROLLED = "overfitting hits deeper layers more than the end of ordinary robust training does"


@pytest.mark.parametrize(
    ("ratio", "ordinary", "last", "verdict"),
    [
        (4.0, 2.0, 0.4, claims.HOLDS),
        (4.0, 3.2, 0.4, claims.FAILS),
        (4.0, 2.0, 0.48, claims.UNTESTABLE),
        (4.0, None, 0.4, claims.UNTESTABLE),
    ],
)
def test_overfitting_is_held_against_training_without_it(ratio, ordinary, last, verdict):
    change = {
        "stage1": number(0.1),
        "stage3": number(0.1 * ratio),
        "stage3 minus stage1": number(0.1 * ratio - 0.1),
        "stage3 / stage1": number(ratio),
    }
    control = ordinary and {
        "stage3 / stage1": number(ordinary),
        "stage3 / stage1, overfitting minus this": number(ratio - ordinary, 0.1),
    }
    found = {
        "robust accuracy": {"best": number(0.5), "last": number(last)},
        "change": {"test": change},
        "evaluated images": 1000,
        "ordinary": control,
    }
    assert verdicts({"Q3": found})[CONTROLLED] == verdict


LOOK_DIFFERENT = "such pairs are more alike than robust and standard networks"


@pytest.mark.parametrize(
    ("gap", "gained", "verdict"),
    [
        (number(0.08), 0.3, claims.HOLDS),
        (number(0.08, 0.05), 0.3, claims.FAILS),
        (number(0.01, 0.001), 0.3, claims.FAILS),
        (number(0.08), 0.05, claims.UNTESTABLE),
    ],
)
def test_threat_models_are_held_against_a_standard_network(gap, gained, verdict):
    kinds = ("between threats", "with standard", "seed to seed", "lp with transformations")
    found = {
        **{name: number(0.7) for name in kinds},
        "above those with standard": {"lp with transformations": gap},
        "robustness gained": {"linf": number(0.4), "snow": number(gained)},
    }
    judged = {row.claim: row for row in claims.judge(CLAIMS, {"Q6": found}, PRESETS["smoke"])}
    assert judged[LOOK_DIFFERENT].verdict == verdict
    if gained < 0.1:
        assert "robustness to snow rose by 0.05 alone" in judged[LOOK_DIFFERENT].found


def test_every_claim_has_a_row_and_says_what_was_not_run():
    rows = claims.judge(CLAIMS, {}, PRESETS["smoke"])
    assert len(rows) == len(CLAIMS)
    assert {row.verdict for row in rows} == {claims.UNTESTABLE}
    assert all("was not run" in row.found for row in rows)
    assert claims.markdown(rows).count("\n") == len(rows) + 2
