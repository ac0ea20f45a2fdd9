"""The best adversarial image seen so far, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor


class BestAdversarial:
    """Keeps, of all images offered for each sample, the most harmful one.

    An image that fools the model beats one that does not; among equals the larger loss wins.
    A NaN output counts as fooled with infinite loss: it can never pass for robustness.

    Attributes:
        images: (N, ...), the best so far; the clean image before any offer.
        fooled: (N,) bool, whether it fools the model.
    """

    def __init__(self, x: Tensor, *, targeted: bool) -> None:
        self.images = x.clone()
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.value = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self._targeted = targeted

    def offer(self, rows: Tensor, images: Tensor, logits: Tensor, y: Tensor, value: Tensor) -> None:
        """Consider ``images`` (M, ...) for the samples ``rows`` (M,).

        Args:
            rows: Indices into the batch.
            images: Candidates, one for each row.
            logits: The model's answer to them, (M, n_classes).
            y: Labels (or targets) of the rows.
            value: The ascended loss of the candidates, (M,).
        """
        fooled = fools(logits, y, targeted=self._targeted)
        value = torch.where(value.isnan(), torch.inf, value.detach()).to(self.value.dtype)
        before = self.fooled[rows]
        better = torch.where(fooled == before, value > self.value[rows], fooled)
        chosen = rows[better]
        self.images[chosen] = images[better]
        self.value[chosen] = value[better]
        self.fooled[chosen] = fooled[better]


def fools(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    """Whether each answer counts as a success of the attack, (N,) bool; NaN always does."""
    hit = logits.argmax(1) == y
    return (hit if targeted else ~hit) | logits.isnan().any(1)
