"""Numbers on the command line, and how they change in the course of a training."""

from __future__ import annotations

import contextlib
import math

import typer

from repsim_fast._core.ramp import Ramp

SYNTAX = "START..STOP@END or START..STOP@BEGIN-END"
HELP = (
    "A number that is to change while the network is trained is START..STOP@END, as in "
    "0..8/255@0.3: from 0 to 8/255 in the first 0.3 of the training; @BEGIN-END begins later."
)


def number(text: str) -> int | float:
    """A number or a fraction.

    Raises:
        ValueError: Neither, or none that is finite.
    """
    with contextlib.suppress(ValueError):
        return int(text)
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below if slash else 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"expected a number or a fraction such as 8/255, got {text!r}")
    return value


def is_ramp(text: str) -> bool:
    """Whether a value is meant to change."""
    return ".." in text


def ramp(text: str, *, whole: bool = False) -> Ramp:
    """The ramp START..STOP, over all of the training, to the share END or from BEGIN to END of it.

    Raises:
        ValueError: No such text, numbers that are none, or shares out of range.

    Example:
        >>> ramp("0..8@0.5")
        Ramp(start=0.0, stop=8.0, begin=0.0, end=0.5, whole=False)
        >>> ramp("1..10@0.2-0.6", whole=True).at(0.7)
        10
    """
    ends, at, shares = text.partition("@")
    start, _, stop = ends.partition("..")
    begin, dash, end = shares.rpartition("-")
    try:
        if at and not end:
            raise ValueError("no share after the @")
        if "..." in text:
            raise ValueError("three dots are no two numbers")
        kind = number if whole else lambda one: float(number(one))
        return Ramp(
            kind(start), kind(stop), float(number(begin)) if dash else 0.0,
            float(number(end)) if at else 1.0, whole,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"expected {SYNTAX}, got {text!r}: {error}") from None


def shown(value: Ramp) -> str:
    """The ramp as it is written on the command line."""
    shares = f"{value.begin:.6g}-{value.end:.6g}" if value.begin else f"{value.end:.6g}"
    return f"{value.start:.6g}..{value.stop:.6g}@{shares}"


def parse_varying(text: str | float | Ramp) -> float | Ramp:
    """A number, a fraction or a ramp; a default comes as a number."""
    return _parsed(str(text), whole=False)


def parse_varying_count(text: str | int | Ramp) -> int | Ramp:
    """A whole number from 1 on, or a ramp of such."""
    value = _parsed(str(text), whole=True)
    ends = (value.start, value.stop) if isinstance(value, Ramp) else (value,)
    if not all(isinstance(end, int) and end >= 1 for end in ends):
        raise typer.BadParameter(f"expected whole numbers from 1 on, got {text!r}")
    return value if isinstance(value, Ramp) else int(value)


def _parsed(text: str, *, whole: bool) -> float | Ramp:
    try:
        if is_ramp(text):
            return ramp(text, whole=whole)
        return number(text) if whole else float(number(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def last(value: float | Ramp) -> float:
    """The number at the end of the training."""
    return value.stop if isinstance(value, Ramp) else value
