"""Training methods: factories, also by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from repsim_fast._core.names import METHODS, check_same
from repsim_fast._core.ramp import Ramp
from repsim_fast.training.ramps import ramped

from .adversarial import adversarial, noise, pgd, standard
from .base import Method, Progress, TrainingBatch
from .free import free
from .single_step import fgsm, gradalign, n_fgsm, rs_fgsm
from .smoothing import smoothing
from .trades import mart, trades
from .verified import crown_ibp, ibp

_METHODS: dict[str, Callable[..., Method]] = {
    "standard": standard,
    "pgd": pgd,
    "trades": trades,
    "mart": mart,
    "fgsm": fgsm,
    "rs-fgsm": rs_fgsm,
    "n-fgsm": n_fgsm,
    "free": free,
    "gradalign": gradalign,
    "noise": noise,
    "smoothing": smoothing,
    "ibp": ibp,
    "crown-ibp": crown_ibp,
}
check_same(METHODS, _METHODS)
# Factories that take a ramp themselves, in place of the one that a number stands for.
_OWN_RAMPS = (ibp, crown_ibp)


def available() -> list[str]:
    """Names that ``build`` knows."""
    return list(_METHODS)


def build(name: str, **options: Any) -> Method:
    """Training method by name, with the options of its factory.

    Numbers among the options may be a ``training.Ramp``, whose value changes in the course of the
    training.

    Raises:
        ValueError: Unknown name, an option that the method does not have or a value that it does
            not take.
    """
    if name not in _METHODS:
        raise ValueError(f"method must be one of {available()}, got {name!r}")
    factory = _METHODS[name]
    try:
        ramps = any(isinstance(value, Ramp) for value in options.values())
        if ramps and factory not in _OWN_RAMPS:
            return ramped(factory, options)
        return factory(**options)
    except TypeError as error:  # factories check the options that they hand on to an attack
        raise ValueError(f"method {name!r}: {error}") from None


__all__ = [
    "Method",
    "Progress",
    "TrainingBatch",
    "adversarial",
    "available",
    "build",
    "crown_ibp",
    "fgsm",
    "free",
    "gradalign",
    "ibp",
    "mart",
    "n_fgsm",
    "noise",
    "pgd",
    "rs_fgsm",
    "smoothing",
    "standard",
    "trades",
]
