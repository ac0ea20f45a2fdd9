"""Threat models: an attack with its settings for training and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repsim_fast import attacks


@dataclass(frozen=True)
class Threat:
    """An attack, and how it is set.

    Attributes:
        attack: Name in ``repsim_fast.attacks``.
        scaled: Settings that a strength multiplies: the radius, and what is in its units.
        common: Settings of training and evaluation.
        train, evaluate: Further settings of each.
    """

    attack: str
    scaled: tuple[str, ...]
    common: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]

    def build(self, *, strength: float = 1.0, training: bool = False, seed: Any = 0) -> Any:
        """The attack, of ``strength`` times its radius."""
        settings = {**self.common, **(self.train if training else self.evaluate)}
        settings.update({name: settings[name] * strength for name in self.scaled})
        return getattr(attacks, self.attack)(**settings, seed=seed)


def pgd(
    norm: str, eps: float, *, steps: tuple[int, int], step_sizes: tuple[float, float]
) -> Threat:
    """PGD, each pair for training and for evaluation."""
    return Threat(
        "PGD",
        ("eps", "step_size"),
        # The same function in another order of rounding, in two thirds of the time.
        {"norm": norm, "eps": eps, "execution": "fast"},
        {"steps": steps[0], "step_size": step_sizes[0]},
        {"steps": steps[1], "step_size": step_sizes[1]},
    )
