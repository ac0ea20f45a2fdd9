"""Verdicts follow from the numbers, or from a premise that is not met."""

import pytest

from experiments.lab import claims
from experiments.lab.claims import Claim, NotTestable


def number(value, se=0.01):
    return {"value": value, "se": se}


def claim(judge, question="Q1"):
    return Claim("text", "source", "expected", question, "file.csv", judge)


def judged(judge, question="Q1"):
    (row,) = claims.judge([claim(judge, question)], {"Q1": {"gap": number(0.2)}}, None)
    return row


def test_a_judge_sees_the_findings_of_its_question():
    row = judged(lambda q, preset: (claims.in_words(q["gap"]), q["gap"]["value"] > 0.1))
    assert (row.found, row.verdict, row.evidence) == ("0.200 ± 0.010", claims.HOLDS, "file.csv")
    assert judged(lambda q, preset: ("", False)).verdict == claims.FAILS


def test_a_premise_that_is_not_met_is_said():
    def unmet(q, preset):
        raise NotTestable("one seed")

    row = judged(unmet)
    assert (row.found, row.verdict) == ("one seed", claims.UNTESTABLE)


def test_a_question_that_was_not_run_is_said():
    row = judged(lambda q, preset: ("", True), question="Q2")
    assert (row.found, row.verdict) == ("Q2 was not run", claims.UNTESTABLE)


@pytest.mark.parametrize("missing", [None, {"value": None, "se": None}])
def test_a_number_that_is_not_known_tests_nothing(missing):
    for use in (claims.known, claims.in_words if missing else claims.known):
        with pytest.raises(NotTestable, match="undefined"):
            use(missing)


@pytest.mark.parametrize(
    ("value", "se", "least", "is_clear"),
    [
        (0.2, 0.05, 0.1, True),
        (0.1, 0.0, 0.1, False),
        (0.2, 0.15, 0.1, False),
        (0.2, None, 0.1, True),
        (-0.2, None, -0.3, False),
    ],
)
def test_clear_is_above_the_threshold_and_above_noise(value, se, least, is_clear):
    assert claims.clear(number(value, se), least) == is_clear


def test_in_words():
    assert claims.in_words(number(0.1234, None)) == "0.123"
    assert claims.in_words(number(0.1234, 0.01)) == "0.123 ± 0.010"
    assert claims.in_words({**number(0.1234, 0.01), "df": 20.0}) == "0.123 ± 0.010"
    few = claims.in_words({**number(0.1234, 0.01), "df": 2})
    assert few == "0.123 ± 0.010 (95 %: 0.080 to 0.166)"


def test_a_premise_needs_more_of_few_networks():
    assert claims.beyond_noise(number(0.03, 0.01))
    assert not claims.beyond_noise({**number(0.03, 0.01), "df": 2})
    assert claims.beyond_noise({**number(0.05, 0.01), "df": 2})
    with pytest.raises(NotTestable, match="error"):
        claims.beyond_noise(number(0.03, None))


def test_markdown_has_a_line_for_each_claim():
    rows = claims.judge([claim(lambda q, preset: ("", True), "Q2")] * 3, {}, None)
    lines = claims.markdown(rows).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
