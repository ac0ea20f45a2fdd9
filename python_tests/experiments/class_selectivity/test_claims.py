"""Verdicts follow from the numbers and from the premises."""

import dataclasses

import pytest

from experiments.class_selectivity.claims import CLAIMS
from experiments.class_selectivity.presets import PRESETS
from experiments.lab import claims


def number(value, se=0.001):
    return {"value": value, "se": se}


def answer(*, seeds=2, spread=0.5, low=0.9, high=0.88, **changes):
    """Findings of a question over alphas."""
    change = {"selectivity": number(spread), "clean accuracy": number(high - low)}
    return {
        "seeds": seeds,
        "low": "-2",
        "high": "2",
        "alphas": {
            alpha: {"selectivity": number(s), "clean accuracy": number(a)}
            for alpha, s, a in (("-2", 0.155, low), ("0", 0.346, 0.9), ("2", 0.88, high))
        },
        "low / 0": {"selectivity": number(0.155 / 0.346)},
        "low minus 0": {"clean accuracy": number(low - 0.9)},
        "high minus 0": {"clean accuracy": number(high - 0.9)},
        "high minus low": {**change, **{name: number(v) for name, v in changes.items()}},
    }


def verdicts(results, preset=PRESETS["smoke"]):
    rows = claims.judge(CLAIMS, results, preset)
    return {claim.judge.__name__ if claim.question == "Q1" else claim.text: row.verdict
            for claim, row in zip(CLAIMS, rows, strict=True)}  # fmt: skip


def of_text(results, part, preset=PRESETS["smoke"]):
    (row,) = claims.judge([c for c in CLAIMS if part in c.text], results, preset)
    return row.verdict


@pytest.mark.parametrize(
    ("low", "high", "halved", "costs"),
    [
        (0.9, 0.88, claims.HOLDS, claims.HOLDS),
        (0.88, 0.895, claims.FAILS, claims.FAILS),
    ],
)
def test_accuracy(low, high, halved, costs):
    found = verdicts({"Q1": answer(low=low, high=high)})
    assert (found["halved"], found["costs"]) == (halved, costs)


def test_published_values_are_expected_of_the_same_network_only():
    results = {"Q1": answer(low=0.92)}
    assert verdicts(results)["absolute"] == claims.UNTESTABLE
    assert verdicts(results)["gains"] == claims.UNTESTABLE
    found = verdicts(results, PRESETS["gpu"])
    assert found["absolute"] == found["gains"] == claims.HOLDS
    results["Q1"]["alphas"]["2"]["selectivity"] = number(0.6)
    assert verdicts(results, PRESETS["gpu"])["absolute"] == claims.FAILS
    smaller = dataclasses.replace(PRESETS["gpu"], absolute=False)
    assert verdicts(results, smaller)["absolute"] == claims.UNTESTABLE


ENDS = [
    ("Q2", "also over clean", "over clean", -1),
    ("Q3", "robust to PGD", "pgd", 1),
    ("Q3", "robust to FGSM", "fgsm", 1),
    ("Q3", "larger input-output Jacobians", "log norm of Jacobian", -1),
    ("Q4", "early layers is inversely", "early clean: components 95", -1),
    ("Q4", "adversarial change grows", "early change, adversarial: components 95", -1),
    ("Q5", "vary more across samples", "across samples", 1),
    ("Q5", "vary more across units", "across units", 1),
]


@pytest.mark.parametrize(("question", "text", "name", "sign"), ENDS)
def test_the_direction_decides_and_the_premises_first(question, text, name, sign):
    for value, verdict in ((0.05, claims.HOLDS), (-0.05, claims.FAILS)):
        assert of_text({question: answer(**{name: sign * value})}, text) == verdict
    noisy = answer(**{name: sign * 0.05})
    noisy["high minus low"][name] = number(sign * 0.05, se=0.03)
    assert of_text({question: noisy}, text) == claims.FAILS
    for premise in ({"seeds": 1}, {"spread": 0.05}, {"high": 0.5}):
        found = answer(**premise, **{name: sign * 0.05})
        assert of_text({question: found}, text) == claims.UNTESTABLE, premise


@pytest.mark.parametrize(("kind", "gain", "sign"), [
    ("attacked", "attacked accuracy", 1), ("mixed", "corrupted accuracy", -1),
])  # fmt: skip
def test_the_way_back(kind, gain, sign):
    other = {"attacked": "mixed", "mixed": "attacked"}[kind]

    def found(gained, change):
        own = {gain: number(gained), "selectivity": number(change)}
        none = {"attacked accuracy": number(0.0), "corrupted accuracy": number(0.0),
                "selectivity": number(0.0)}  # fmt: skip
        return {"seeds": 2, f"{kind} minus standard": own, f"{other} minus standard": none}

    text = {"attacked": "training against attacks", "mixed": "training against corruptions"}[kind]
    assert of_text({"Q6": found(0.3, sign * 0.05)}, text) == claims.HOLDS
    assert of_text({"Q6": found(0.3, -sign * 0.05)}, text) == claims.FAILS
    assert of_text({"Q6": found(-0.1, sign * 0.05)}, text) == claims.UNTESTABLE


def test_beyond():
    found = {
        "low with high": number(0.5), "seed to seed": number(0.8),
        "seed to seed minus low with high": number(0.3),
        "explained": {"attacked": number(0.8, 0.1), "mixed": number(0.0)},
    }  # fmt: skip
    for text in ("represent images differently", "selectivity explains"):
        assert of_text({"Q7": found}, text) == claims.HOLDS
    found |= {"seed to seed minus low with high": None}
    assert of_text({"Q7": found}, "represent images differently") == claims.UNTESTABLE
    found["explained"]["attacked"] = number(0.3)
    assert of_text({"Q7": found}, "selectivity explains") == claims.FAILS


def test_adversarial_dimensions():
    name = "early adversarial minus corrupted: components 95"
    for value, verdict in ((0.1, claims.HOLDS), (-0.1, claims.FAILS)):
        results = {"Q4": {**answer(), "at 0": {name: number(value)}}}
        assert of_text(results, "in more dimensions than corrupted") == verdict
