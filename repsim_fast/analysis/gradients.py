"""Gradients of units with respect to the input, and how much they vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import images_device
from repsim_fast._core.borrow import borrow, model_dtype
from repsim_fast._core.checks import check_finite, check_whole
from repsim_fast._core.randomness import seeded
from repsim_fast.capture import Capture, LayerSpec

from .units import unit_layers

__all__ = [
    "Variability", "input_unit_gradients", "jacobian_norms", "mean_variability", "variability",
]  # fmt: skip


class Variability(NamedTuple):
    """Coefficients of variation, standard deviation over mean, of gradient magnitudes.

    Attributes:
        across_samples: Of a unit across samples, mean over units.
        across_units: Of a sample across units, mean over samples.
    """

    across_samples: float
    across_units: float


def input_unit_gradients(
    model: nn.Module,
    x: Tensor,
    *,
    layers: LayerSpec = None,
    units: int | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Magnitude of each unit's gradient in the input, ‖∂a_u(x) / ∂x‖₂, by sample.

    a_u is the mean over positions of channel u. One forward pass for all layers and one backward
    pass a unit, of all samples at once: hand in as many samples as a training batch has.

    Args:
        model: Runs in eval mode and comes back as it was, ``.grad`` too.
        x: Inputs (N, ...), of floating point. Units of a sample must not depend on others.
        layers: As for ``Capture``; default every ``nn.ReLU``.
        units: Units a layer, drawn at random; default all.
        seed: Of the draw.

    Returns:
        (N, units) by layer, in order of execution; 0 for a unit that the input does not move.

    Raises:
        ValueError: No sample, less than one unit, a layer without units for each sample, or layers
            that the model does not have.
        TypeError: Inputs that are not floating point, units that are no whole number.

    Example:
        >>> import torch
        >>> from repsim_fast.analysis.gradients import input_unit_gradients
        >>> model = torch.nn.Linear(2, 3, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> input_unit_gradients(model, torch.rand(1, 2), layers="(model)")
        {'(model)': tensor([[5., 1., 0.]])}

    References:
        Leavitt & Morcos, "Linking average- and worst-case perturbation robustness via class
        selectivity and dimensionality", 2020, which does not say how gradients become magnitudes.
    """
    device = images_device(x)
    if x.ndim < 1 or x.numel() == 0:
        raise ValueError(f"x must hold samples (N, ...), got shape {tuple(x.shape)}")
    check_whole(**({} if units is None else {"units": units}))
    if units is not None and units < 1:
        raise ValueError(f"units must be at least 1 or None for all, got {units}")
    generator = seeded(seed)
    chosen = unit_layers(model, layers)
    with borrow(model, device=device, seed=seed):
        images = x.detach().clone().requires_grad_()
        with Capture(model, chosen, maps="pool") as capture:
            # In the model's precision; a leaf cannot be written on, which the model may do.
            model(images.to(model_dtype(model, images.dtype), copy=True))
        return {
            name: _magnitudes(name, activations, images, units, generator)
            for name, activations in capture.activations.items()
        }


def jacobian_norms(model: nn.Module, x: Tensor) -> Tensor:
    """Frobenius norm of the Jacobian of the logits in the input, by sample, (N,).

    Args:
        model: Maps inputs (N, ...) to logits (N, n_classes); runs in eval mode, comes back as it
            was.
        x: As for :func:`input_unit_gradients`.

    References:
        Hoffman et al., "Robust learning with Jacobian regularization", 2019.
    """
    (gradients,) = input_unit_gradients(model, x, layers="(model)").values()
    norms: Tensor = torch.linalg.vector_norm(gradients, dim=1)
    return norms


def variability(gradients: Tensor) -> Variability:
    """How much magnitudes vary across samples and across units.

    Units whose gradient is 0 for all samples, and samples for which it is 0 for all units, have no
    coefficient and do not count.

    Args:
        gradients: (N >= 2, n_units >= 2), not negative.

    Returns:
        Both coefficients; NaN where no unit or no sample has one.

    Raises:
        ValueError: Fewer samples or units, or values that are negative or not finite.
    """
    if gradients.ndim != 2 or min(gradients.shape) < 2:
        raise ValueError(
            f"gradients must be (N >= 2, n_units >= 2), got shape {tuple(gradients.shape)}"
        )
    check_finite("gradients", gradients)
    if bool((gradients < 0).any()):
        raise ValueError(f"gradients must be magnitudes, at least 0, got {float(gradients.min())}")
    return Variability(_coefficient(gradients, 0), _coefficient(gradients, 1))


def mean_variability(gradients: Mapping[str, Tensor]) -> Variability:
    """Mean over layers, see :func:`variability`; of one at least.

    A layer that has no coefficient, as one whose units are all dead, does not count, as such a unit
    does not there; NaN where no layer has one.

    Raises:
        ValueError: No layers, or as there.
    """
    if not gradients:
        raise ValueError("gradients must be of one layer at least, got none")
    found = torch.tensor([variability(own) for own in gradients.values()], dtype=torch.float64)
    return Variability(*found.nanmean(0).tolist())


def _magnitudes(
    layer: str, activations: Tensor, images: Tensor, units: int | None, generator: torch.Generator
) -> Tensor:
    n, n_units = len(images), activations[0].numel() if len(activations) else 0
    if activations.ndim != 2 or len(activations) != n or not n_units:
        raise ValueError(
            f"layer {layer!r} must have units for each of the {n} samples, (n, n_units >= 1), "
            f"got {tuple(activations.shape)}"
        )
    numbers = list(range(n_units))
    if units is not None and units < n_units:
        numbers = sorted(torch.randperm(n_units, generator=generator)[:units].tolist())
    found = []
    for number in numbers:
        # Of a sum over samples: each one's gradient is its own.
        (gradient,) = torch.autograd.grad(
            activations[:, number].sum(), images, retain_graph=True, allow_unused=True
        )
        gradient = torch.zeros_like(images) if gradient is None else gradient
        found.append(torch.linalg.vector_norm(gradient.flatten(1), dim=1))
    return torch.stack(found, 1)


def _coefficient(gradients: Tensor, dim: int) -> float:
    values = gradients.double()
    mean = values.mean(dim)
    some = mean > 0
    return float((values.std(dim)[some] / mean[some]).mean())
