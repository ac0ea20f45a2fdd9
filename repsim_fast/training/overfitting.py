"""Catastrophic overfitting: robustness that holds against one step and not against many."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from repsim_fast._core.borrow import Model
from repsim_fast.attacks import FGSM, PGD
from repsim_fast.data.labelled import LabelledImages

from .evaluation import evaluate


@dataclass(frozen=True)
class Probe:
    """Accuracies against one step and against ten."""

    fgsm: float
    pgd: float


class OverfittingDetector:
    """Probes a few training images each epoch with FGSM and PGD-10 of the training radius.

    Args:
        eps: Radius in image units.
        n: Images probed: of training data in memory evenly spaced ones, of others the first.
        drop: Collapse: fall of the accuracy against PGD below its best so far.
        gap: Masking: accuracy against FGSM minus that against PGD; healthy networks stay below 0.1.
        options: Further settings of both attacks, such as ``norm``.
    """

    def __init__(
        self, eps: float, *, n: int = 512, drop: float = 0.2, gap: float = 0.3, **options: Any
    ) -> None:
        if not eps > 0 or n < 1:
            raise ValueError(f"eps must be positive and n at least 1, got {eps} and {n}")
        self.n = n
        self.drop = drop
        self.gap = gap
        self._fgsm = FGSM(eps, **options)
        self._pgd = PGD(eps, steps=10, step_size=eps / 4, seed=0, **options)

    def probe(self, model: Model, data: LabelledImages, device: torch.device) -> Probe:
        """Accuracies of ``model`` on the probed images."""
        part = data.some(self.n)
        scores = [
            evaluate(model, part, attack, device=device).robust
            for attack in (self._fgsm, copy.deepcopy(self._pgd))  # the same random start each epoch
        ]
        return Probe(*(score or 0.0 for score in scores))

    def verdict(self, probes: Sequence[Probe]) -> str | None:
        """What is wrong after the last of the epochs' probes, None if nothing."""
        if not probes:  # resumed from epochs without a detector
            return None
        last = probes[-1]
        best = max(probe.pgd for probe in probes)
        if best - last.pgd > self.drop:
            return f"accuracy against PGD collapsed from {best:.3f} to {last.pgd:.3f}"
        if last.fgsm - last.pgd > self.gap:
            return f"accuracy {last.fgsm:.3f} against FGSM but only {last.pgd:.3f} against PGD"
        return None
