"""What one run of an attack works on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from repsim_fast.ops import Scalar

from .best_adversarial import BestAdversarial
from .objective import InputGradient
from .region import Region, take


@dataclass(frozen=True)
class Problem:
    """What is ascended, where, and in steps of which length.

    Attributes:
        objective: Loss and input gradient.
        region: Where the images may go.
        y: Labels or targets (N,).
        size: Length of a step, a number or (N,).
    """

    objective: InputGradient
    region: Region
    y: Tensor
    size: Scalar

    def rows(self, index: Tensor) -> Problem:
        """The problem of some of the images."""
        return replace(
            self,
            region=self.region.rows(index),
            y=self.y[index],
            size=take(self.size, index),
        )

    def step(self, adv: Tensor, gradient: Tensor) -> Tensor:
        """One ascent step, back inside the region."""
        return self.region.step(adv, gradient, self.size)

    def offer(self, found: BestAdversarial, rows: Tensor, adv: Tensor) -> None:
        """Let ``found`` consider ``adv``, whose logits are not known yet, for its ``rows``."""
        logits = self.objective.logits(adv)
        found.offer(rows, adv, logits, self.y, self.objective.value(logits, self.y))
