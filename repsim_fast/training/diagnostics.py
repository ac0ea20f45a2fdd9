"""Figures of an epoch beside accuracies: how the network answers, and how curved its loss is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import borrow, model_dtype
from repsim_fast._core.checks import check_seed
from repsim_fast._core.model_state import device_of
from repsim_fast._core.randomness import seeded
from repsim_fast.analysis.curvature import input_hessian_top
from repsim_fast.analysis.selectivity import selectivity
from repsim_fast.attacks import FGSM, PGD

from .callback import OnEpoch, StopTraining
from .history import Epoch
from .regularisers import gradient_misalignment


class Diagnostics:
    """An ``on_epoch`` that measures the network on a few images and gives figures by name.

    ``selectivity``: mean over layers of the mean class selectivity of their units;
    ``gradient_cosine``: mean cos(grad l(x), grad l(x + u)), u uniform in the Linf ball of ``eps``;
    ``perturbation_cosine``: mean cosine of the perturbations of FGSM and of PGD-10;
    ``input_curvature``: mean largest eigenvalue of the loss's Hessian in the image. The first falls
    where networks share their units, the next two fall to 0 and the last explodes where a network
    overfits to one step. The model is in eval mode meanwhile and comes back as it was; random
    numbers are the same in every epoch and the training's own are not touched.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels: (N,), of two classes at least for the selectivity.
        eps: Radius of the two cosines, in image units; None for neither.
        selectivity: Whether to measure it.
        curvature: Whether to measure it.
        layers: Layers of the selectivity, names or patterns; default every ReLU.
        batch_size: Images at a time.
        every: Epochs between measurements; None for the epochs whose accuracy ``Evaluation``
            has measured by then.
        then: A further ``on_epoch``, called with the same arguments; its figures come beside these.
        seed: Of u, of the attack's start and of the first vectors of the curvature.
        attack_options: Further settings of both attacks, such as ``outside``.

    Raises:
        ValueError: Not one label for each image, labels of one class for the selectivity, a radius
            that is not positive, a count below 1, or a name that ``then`` gives as well.
        TypeError: Images that are not floating point.

    Example:
        >>> from repsim_fast.training import Diagnostics, train
        >>> watch = Diagnostics(images, labels, eps=8 / 255)  # doctest: +SKIP
        >>> history = train(net, data, on_epoch=watch)  # doctest: +SKIP
        >>> [epoch.figures["gradient_cosine"] for epoch in history.epochs]  # doctest: +SKIP
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        eps: float | None = None,
        selectivity: bool = True,
        curvature: bool = True,
        layers: Sequence[str] | None = None,
        batch_size: int = 128,
        every: int | None = 1,
        then: OnEpoch | None = None,
        seed: int = 0,
        **attack_options: Any,
    ) -> None:
        if len(images) == 0 or labels.shape != (len(images),):
            raise ValueError(
                "images and labels must be as many, one at least, got "
                f"{tuple(images.shape)} and {tuple(labels.shape)}"
            )
        if eps is not None and not eps > 0:
            raise ValueError(f"eps must be positive or None, got {eps}")
        if batch_size < 1 or (every is not None and every < 1):
            raise ValueError(
                f"batch_size and every must be at least 1, got {batch_size} and {every}"
            )
        if not images.is_floating_point():
            raise TypeError(f"images must be floating point, got {images.dtype}")
        if selectivity and bool((labels == labels[0]).all()):
            raise ValueError("labels must be of two classes at least: give selectivity=False")
        self.images, self.labels = images, labels
        self.eps, self.seed, self.attack_options = eps, check_seed(seed), attack_options
        self.selectivity, self.curvature = selectivity, curvature
        self.batch_size, self.every, self.then = batch_size, every, then
        self.layers = layers if layers is None else list(layers)
        if eps is not None:
            self._attacks()  # bad settings fail here

    def __call__(self, model: nn.Module, record: Epoch) -> Mapping[str, SupportsFloat]:
        """The figures of ``model``, and those of ``then``."""
        own: dict[str, SupportsFloat] = {}
        if self._due(record):
            own.update(self.measure(model))
        if self.then is None:
            return own
        try:
            return _merged(own, self.then(model, record) or {})
        except StopTraining as stop:
            raise StopTraining(stop.reason, _merged(own, stop.figures or {})) from None

    def _due(self, record: Epoch) -> bool:
        if self.every is None:
            return record.clean_accuracy is not None
        return (record.epoch + 1) % self.every == 0

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The figures alone."""
        device = device_of(model)
        x, y = self.images.to(device), self.labels.to(device)
        sums: dict[str, float] = {}
        generator = seeded(self.seed)
        attacks = None if self.eps is None else self._attacks()
        for start in range(0, len(y), self.batch_size):
            part = slice(start, start + self.batch_size)
            images, labels = x[part], y[part]
            found = self._of_batch(model, images, labels, generator, attacks)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(labels)
        figures = {name: total / len(y) for name, total in sums.items()}
        if self.selectivity:
            data = (x.to(model_dtype(model, x.dtype)), y)
            units = selectivity(model, data, layers=self.layers, batch_size=self.batch_size)
            figures["selectivity"] = units.mean
        return figures

    def _of_batch(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        attacks: tuple[FGSM, PGD] | None,
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.eps is not None and attacks is not None:
            nearby = x + self.eps * (2 * torch.rand(x.shape, generator=generator).to(x) - 1)
            with borrow(model, device=x.device, seed=self.seed):
                apart = gradient_misalignment(model, x, y, nearby)
            found["gradient_cosine"] = 1.0 - apart.item()
            one, many = ((attack(model, x, y) - x).flatten(1) for attack in attacks)
            cosine = torch.nn.functional.cosine_similarity(one, many, dim=1)
            found["perturbation_cosine"] = float(cosine.mean())
        if self.curvature:
            found["input_curvature"] = float(input_hessian_top(model, x, y, seed=self.seed).mean())
        return found

    def _attacks(self) -> tuple[FGSM, PGD]:
        assert self.eps is not None
        step = self.eps / 4
        pgd = PGD(self.eps, steps=10, step_size=step, seed=self.seed, **self.attack_options)
        return FGSM(self.eps, **self.attack_options), pgd


def _merged(
    own: Mapping[str, SupportsFloat], other: Mapping[str, SupportsFloat]
) -> Mapping[str, SupportsFloat]:
    if twice := sorted(own.keys() & other.keys()):
        raise ValueError(f"then: the diagnostics have a figure {twice[0]!r} already")
    return {**own, **other}
