"""Claims of a paper, and their verdicts from the results.

A claim is judged by code against a threshold that is stated before the run. A claim whose premises
a run does not meet (no network was robust, one seed) is "not testable at this scale", whatever its
numbers. A judge sees the findings as JSON holds them: an estimate is {"value", "se"}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.special import stdtrit

HOLDS, FAILS, UNTESTABLE = "holds", "does not", "not testable at this scale"

# What a number must exceed to be more than noise, in standard errors.
SIGMAS = 2.0
# Half a 95 % interval is said where it is more standard errors than that: nine degrees of freedom.
_WIDE = 2.26

Findings: TypeAlias = Mapping[str, Any]
"""What a question found, or an estimate among it."""

Judged: TypeAlias = tuple[str, bool]
"""What was found, in words, and whether the claim holds."""


class NotTestable(Exception):
    """A premise of the claim is not met; the message says which."""


@dataclass(frozen=True)
class Claim:
    """A claim, the question that answers it, and how.

    Attributes:
        text: The claim.
        source: Where it is read, and how sure that is.
        expected: What must be found for it to hold, with thresholds.
        question: Number of the question whose findings decide.
        evidence: File of the results that shows them.
        judge: (findings of the question, preset) -> `Judged`; raises `NotTestable`.
    """

    text: str
    source: str
    expected: str
    question: str
    evidence: str
    judge: Callable[[Findings, Any], Judged]


@dataclass(frozen=True)
class Row:
    """One claim of the table."""

    claim: str
    source: str
    expected: str
    found: str
    evidence: str
    verdict: str


def judge(claims: Sequence[Claim], results: Mapping[str, Findings], preset: Any) -> list[Row]:
    """All claims against findings {question: findings}; questions that were not run are said."""
    rows = []
    for claim in claims:
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


def known(estimate: Findings | None) -> float:
    """The value of an estimate.

    Raises:
        NotTestable: There is none.
    """
    if estimate is None or estimate["value"] is None:
        raise NotTestable("a number is undefined or was not computed")
    return float(estimate["value"])


def in_words(estimate: Findings) -> str:
    """An estimate in words; its 95 % interval, too, where so few networks or groups of images
    made its error that ± two of them is much less.

    Raises:
        NotTestable: It has no value.
    """
    value, error = known(estimate), estimate["se"]
    if error is None:
        return f"{value:.3f}"
    half = quantile(estimate) * error
    wide = f" (95 %: {value - half:.3f} to {value + half:.3f})" if half > _WIDE * error else ""
    return f"{value:.3f} ± {error:.3f}{wide}"


def quantile(estimate: Findings) -> float:
    """Standard errors that a 95 % interval reaches to either side: Student's quantile."""
    return float(stdtrit(estimate.get("df") or np.inf, 0.975))


def clear(estimate: Findings, least: float) -> bool:
    """Above the threshold, and above 0 by two standard errors where these are known.

    With few networks that is less than 95 % sure: `in_words` then gives the interval beside.

    Raises:
        NotTestable: The estimate has no value.
    """
    return known(estimate) > least and known(estimate) > SIGMAS * (estimate["se"] or 0.0)


def beyond_noise(estimate: Findings) -> bool:
    """Whether a premise is met: the 95 % interval of the estimate lies above 0.

    Raises:
        NotTestable: The estimate or its error has no value.
    """
    if estimate["se"] is None:
        raise NotTestable("the error of a number is not known")
    return known(estimate) > quantile(estimate) * float(estimate["se"])
