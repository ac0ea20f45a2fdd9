"""Verdicts follow from the numbers and from the premises."""

import dataclasses

import pytest

from experiments.catastrophic_overfitting import judges
from experiments.catastrophic_overfitting.claims import CLAIMS
from experiments.catastrophic_overfitting.presets import PRESETS
from experiments.catastrophic_overfitting.questions import QUESTIONS
from experiments.lab.claims import NotTestable

PRESET = PRESETS["gpu"]  # focus: 6, 8


def number(value, se=0.01):
    return {"value": value, "se": se}


def radius(collapsed, robust=(0.4, 0.45, 0.0, 1.0), **more):
    betas = ("0", "6", "8", "17")
    return {
        "clean": {b: number(0.8) for b in betas},
        "robust": {b: number(v) for b, v in zip(betas, robust, strict=True)},
        "collapsed": dict(zip(betas, collapsed, strict=True)),
        "onset / eps": [1.0, 1.33],
        "end / eps": [2.3, 2.8],
        **more,
    }


def phase(collapsed=(0.0, 0.0, 1.0, 0.0), **more):
    return {"radii": {"4": radius((0.0,) * 4), "6": radius(collapsed, **more)}}


@pytest.mark.parametrize(
    ("judge", "found", "holds"),
    [
        (judges.induced, phase(), True),
        (judges.induced, phase((1.0, 1.0, 1.0, 0.0)), False),
        (judges.induced, phase((0.0, 0.0, 0.5, 0.0)), False),  # of one seed only
        (judges.suffices, phase(), True),
        (judges.suffices, phase(robust=(0.4, 0.4, 0.0, 0.5)), False),
        (judges.onset, phase(), True),
        (judges.onset, phase(**{"onset / eps": [1.6, 2.0]}), False),
        (judges.end, phase(), True),
        (judges.end, phase(**{"end / eps": [3.1, 4.0]}), False),
        (judges.jump, phase(**{"jump of clean accuracy": number(0.1)}), True),
        (judges.jump, phase(**{"jump of clean accuracy": number(0.1, 0.06)}), False),
        (judges.rise, phase(**{"rise of robust accuracy": number(0.01)}), False),
        (judges.small_radius, phase(), True),
    ],
)
def test_phase(judge, found, holds):
    assert judge(found, PRESET)[1] is holds


def test_phase_without_premises():
    small = dataclasses.replace(PRESET, absolute=False)
    for judge, found, preset in (
        (judges.onset, phase(), small),
        (judges.jump, phase(), PRESET),
        (judges.suffices, phase((0.0,) * 4), PRESET),
        (judges.induced, phase(robust=(0.1, 0.1, 0.0, 1.0)), PRESET),  # nothing to lose
        (judges.jump, phase(robust=(0.1,) * 4, **{"jump of clean accuracy": number(0.1)}), PRESET),
        (judges.end, {"radii": {"6": radius((0.0,) * 4, **{"end / eps": None})}}, PRESET),
    ):
        with pytest.raises(NotTestable):
            judge(found, preset)


def cell(collapsed):
    robust = number(0.0 if collapsed else 0.4)
    return {"clean": number(0.7), "robust": robust, "collapsed": float(collapsed), "networks": 2}


FRAGILE = {**cell(0), "clean": number(1.0), "robust": number(0.0)}
"""Of a network that resists neither one step nor many."""


def test_cures_are_judged_where_there_is_something_to_cure():
    judge = judges.cure("pgd")
    found = {"methods": {"fgsm": {"4": cell(False), "8": cell(True)}, "pgd": {"4": cell(True)}}}
    found["methods"]["pgd"]["8"] = cell(False)
    assert judge(found, PRESET)[1]
    found["methods"]["pgd"]["8"] = FRAGILE
    with pytest.raises(NotTestable, match="pgd at beta 8 has not collapsed and is not robust"):
        judge(found, PRESET)
    found["methods"]["pgd"]["8"] = cell(True)
    assert not judge(found, PRESET)[1]
    found["methods"]["fgsm"]["8"] = cell(0.5)
    assert not judge(found, PRESET)[1]  # one collapse refutes
    found["methods"]["pgd"]["8"] = cell(False)
    with pytest.raises(NotTestable, match="fgsm at beta 8: 1 of 2 networks collapse; that"):
        judge(found, PRESET)
    with pytest.raises(NotTestable, match="FGSM did not collapse"):
        judge({"methods": {"fgsm": {"8": cell(False)}}}, PRESET)
    with pytest.raises(NotTestable, match="trained: fgsm"):
        judge({"methods": {"fgsm": {"8": cell(True)}}}, PRESET)


def sides(**figures):
    return {
        "networks that collapse": 1,
        **{
            side: {name: number(pair[i], None) for name, pair in figures.items()}
            for i, side in enumerate(("before", "after"))
        },
    }


@pytest.mark.parametrize(
    ("judge", "found", "holds"),
    [
        (judges.uses_images_first, sides(clean=(0.8, 1), original=(0.6, 0)), True),
        (judges.uses_images_first, sides(clean=(0.8, 1), original=(0.3, 0)), False),
        (judges.follows_feature, sides(feature=(0.3, 0.9)), True),
        (judges.follows_feature, sides(feature=(0.8, 0.9)), False),
        (judges.misaligns, sides(gradient_cosine=(0.9, 0.1)), True),
        (judges.misaligns, sides(gradient_cosine=(0.9, 0.6)), False),
        (judges.perturbs_otherwise, sides(perturbation_cosine=(0.7, 0.1)), True),
        (judges.perturbs_otherwise, sides(perturbation_cosine=(0.3, 0.1)), False),
    ],
)
def test_before_and_after(judge, found, holds):
    assert judge(found, PRESET)[1] is holds
    with pytest.raises(NotTestable, match="was robust and collapsed then"):
        judge({"networks that collapse": 0}, PRESET)


def test_curvature_must_exceed_that_of_pgd_too():
    found = sides(input_curvature=(1.0, 10.0))
    for pgd, holds in ((1.0, True), (5.0, False)):
        found["pgd, last"] = {"input_curvature": number(pgd)}
        assert judges.curvature(found, PRESET)[1] is holds


def test_interventions_need_a_collapse_to_be_rid_of():
    judge = judges.without("feature", "feature, complement")
    for collapsed in (True, False):
        found = {"feature": cell(True), "feature, complement": cell(collapsed)}
        assert judge(found, PRESET)[1] is not collapsed
    with pytest.raises(NotTestable, match=r"1\.000.* clean, 0\.000.* under attack"):
        judge({"feature": cell(True), "feature, complement": FRAGILE}, PRESET)
    with pytest.raises(NotTestable, match="may be chance"):
        judge({"feature": cell(0.5), "feature, complement": cell(False)}, PRESET)
    with pytest.raises(NotTestable, match="no collapse to be rid of"):
        judge({"feature": cell(False)}, PRESET)


def test_changes_need_a_collapse():
    change = {"collapse minus control": number(0.2), "last block minus first": number(0.05)}
    found = {"collapsed": True, "controls that collapse": 0, "change": change}
    assert judges.changes(found, PRESET)[1]
    assert not judges.deeper(found, PRESET)[1]
    with pytest.raises(NotTestable):
        judges.changes({**found, "collapsed": False}, PRESET)
    with pytest.raises(NotTestable, match="no control"):
        judges.changes({**found, "controls that collapse": 1}, PRESET)


def test_claims_are_of_questions_that_exist():
    assert {claim.question for claim in CLAIMS} == set(QUESTIONS)
