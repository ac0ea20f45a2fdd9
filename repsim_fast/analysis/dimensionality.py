"""How many dimensions activations have: principal components, participation ratio, two-NN."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim_fast._core.checks import check_finite, check_matrix, check_whole
from repsim_fast.capture import LayerSpec, Maps, MaskSpec, run
from repsim_fast.similarity.base.nearest import nearest

from .estimates import Array, Estimate, jackknife
from .moments import GroupedMoments, is_rounding
from .units import batches, watching

__all__ = [
    "Dimensions", "LayerDimensions", "components_for", "dimensionality", "dimensions",
    "participation_ratio", "two_nn",
]  # fmt: skip

# Share of the ratios of distances that the line of the two-NN estimate is fitted to: the largest
# are of samples at the edge, or alone.
_FITTED = 0.9

Perturbation = Callable[[nn.Module, Tensor, Any], Tensor]
"""(model, x, y) -> x', such as an attack or a corruption; y is None where data have no labels."""


@dataclass(frozen=True)
class Dimensions:
    """Dimensionality of rows, each index with its jackknife standard error.

    Attributes:
        components_90, components_95: Principal components for that share of the variance. They are
            whole numbers: an error of 0 says that no group of samples changed them.
        participation_ratio: (Σλ)² / Σλ².
        intrinsic: Two-NN estimate of the intrinsic dimension. Neighbours are often mutual, of which
            the error does not know: it is up to a third too small.
        features: Number of features p.
        samples: Number of samples n; no index but the last can exceed min(n - 1, p).
    """

    components_90: Estimate
    components_95: Estimate
    participation_ratio: Estimate
    intrinsic: Estimate
    features: int
    samples: int


@dataclass(frozen=True)
class LayerDimensions:
    """Dimensionality of activations; with a perturbation, of the perturbed ones and the change.

    Attributes:
        clean: Of the activations X.
        perturbed: Of those of perturbed inputs X'.
        change: Of X' - X.
    """

    clean: Dimensions
    perturbed: Dimensions | None = None
    change: Dimensions | None = None


def components_for(values: Tensor, share: float) -> float:
    """Fewest leading eigenvalues whose sum is at least a share of all.

    Args:
        values: Eigenvalues (m,), not negative, in any order.
        share: In (0, 1].

    Returns:
        1 to m; NaN where all are 0.

    Raises:
        ValueError: A share outside of (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number in (0, 1], got {share}")
    values = values.double().sort(descending=True).values
    total = float(values.sum())
    if not total > 0:
        return float("nan")
    # Rounding must not ask for one more where the share is met exactly.
    reached = values.cumsum(0) >= share * total * (1 - 1e-12)
    return float(reached.nonzero()[0]) + 1.0 if bool(reached.any()) else float(len(values))


def participation_ratio(values: Tensor) -> float:
    """(Σλ)² / Σλ² of eigenvalues: m if m are equal and the others 0.

    Args:
        values: (m,), not negative.

    Returns:
        1 to m; NaN where all are 0.
    """
    values = values.double()
    squares = float(values.square().sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else float("nan")


def two_nn(x: Tensor) -> float:
    """Intrinsic dimension d from the distances to the two nearest neighbours, μ = r₂ / r₁.

    -log(1 - F(μ)) = d log μ for samples of locally uniform density; d is the slope of a line
    through the origin, fitted to all but the largest tenth of the ratios. Low for d above ten or
    so, by far where samples are few. Samples with an equal one do not count.

    Args:
        x: (n >= 3, p), of float32 or float64.

    Returns:
        The dimension; NaN where fewer than three samples have distinct neighbours.

    Raises:
        ValueError: Fewer than three samples, no features, no matrix, or not finite.

    Example:
        >>> import torch
        >>> angles = 6.28 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
        >>> round(two_nn(torch.stack((angles.cos(), angles.sin()), 1)))
        1

    References:
        Facco et al., "Estimating the intrinsic dimension of datasets by a minimal neighborhood
        information", 2017.
    """
    _check_rows(x)
    return _slope(_ratios(x.detach()))


def _check_rows(x: Tensor) -> None:
    check_matrix("x", x)
    check_finite("x", x)
    if len(x) < 3 or not x.shape[1]:
        raise ValueError(
            f"x: expected at least three samples of one feature or more, got {tuple(x.shape)}"
        )


def _ratios(x: Tensor) -> Tensor:
    """r₂ / r₁ of each sample (n,), NaN for one that has an equal."""
    rows = x if x.dtype in (torch.float32, torch.float64) else x.float()
    near = nearest(rows, 2, ordered=True)
    # Gathered one by one: (n, 2, p) is more than the features themselves.
    first, second = (
        (rows[near[:, i]].double() - rows.double()).norm(dim=1).cpu() for i in range(2)
    )
    return torch.where(first > 0, second / first, torch.nan)


def _slope(ratios: Tensor) -> float:
    """Of the line through the origin, by least squares."""
    ratios = ratios[~ratios.isnan()].sort().values
    n = len(ratios)
    fitted = int(_FITTED * n)
    if fitted < 2:
        return float("nan")
    logs = ratios[:fitted].log()
    shares = -torch.log1p(-torch.arange(1, fitted + 1, dtype=torch.float64) / n)
    squares = float(logs.square().sum())
    return float((logs * shares).sum()) / squares if squares > 0 else float("nan")


def dimensions(x: Tensor, *, groups: int = 10, neighbours: int = 2000) -> Dimensions:
    """All indices of a matrix, see :class:`Dimensions`.

    Args:
        x: (n >= 3, p), of a floating dtype.
        groups: Of the jackknife; sample i is in group i modulo ``groups``.
        neighbours: Samples that the two-NN estimate is taken on, the first ones.

    Raises:
        ValueError: Fewer than three samples, no features, no matrix, not finite, or less than two
            groups.
        TypeError: Groups or neighbours that are no whole numbers.

    Example:
        >>> import torch
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> found = dimensions(torch.cat((x, x, torch.zeros(500, 4)), 1))
        >>> found.components_95.value, round(found.participation_ratio.value, 1)
        (3.0, 3.0)
    """
    _check_rows(x)
    _check_sizes(groups, neighbours)
    intake = _Intake(groups, neighbours)
    intake.add(x, len(x))
    return intake.compute("x")


def dimensionality(
    model: nn.Module,
    data: Any,
    *,
    perturbation: Perturbation | None = None,
    layers: LayerSpec = None,
    maps: Maps = "pool",
    mask: MaskSpec = None,
    groups: int = 10,
    neighbours: int = 2000,
    batch_size: int | None = None,
) -> dict[str, LayerDimensions]:
    """Dimensionality of a model's layers, and of their change under a perturbation, in one pass.

    Args:
        model: Runs in eval mode without gradients and comes back as it was.
        data: As for ``compare``; with labels where the perturbation needs them, which gets None
            in their place otherwise.
        perturbation: (model, x, y) -> x', such as an attack or a corruption of
            ``repsim_fast.attacks``.
        layers: As for ``Capture``; default every ``nn.ReLU``.
        maps: As for ``Capture``: "pool" has a feature a channel, "flatten" one a number. Of rows
            that are positions or tokens those of a sample are in one group of the jackknife; where
            samples have different numbers of them standard errors are NaN.
        mask: Which tokens are real, as for ``Capture``.
        groups: Of the jackknife, two at least.
        neighbours: Samples that the two-NN estimate is taken on, the first ones of the data.
        batch_size: As for ``compare``; no number depends on it.

    Returns:
        ``LayerDimensions`` by layer, in order of execution.

    Raises:
        ValueError: Fewer than three samples, activations that are not finite, layers that the model
            does not have, or numbers out of range.
        TypeError: Groups or neighbours that are no whole numbers, a perturbation that is no
            function or returns no tensor.

    Example:
        >>> import torch
        >>> from repsim_fast.analysis.dimensionality import dimensionality
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 50), torch.nn.ReLU())
        >>> found = dimensionality(model, torch.rand(200, 4), layers="0")
        >>> found["0"].clean.components_95.value <= 4
        True

    References:
        Leavitt & Morcos, "Linking average- and worst-case perturbation robustness via class
        selectivity and dimensionality", 2020; participation ratio: Gao et al., "A theory of
        multineuronal dimensionality, dynamics and measurement", 2017; two-NN: Facco et al., 2017.
    """
    _check_sizes(groups, neighbours)
    if perturbation is not None and not callable(perturbation):
        raise TypeError(f"perturbation must be callable, (model, x, y) -> x', got {perturbation!r}")
    kinds = ("clean",) if perturbation is None else ("clean", "perturbed", "change")
    found: dict[str, dict[str, _Intake]] = {}
    kept: dict[str, Tensor] = {}  # of the batch, benign
    passes = ["clean"]  # which of the two is running
    samples = [0]  # of the batch

    def take(name: str, features: Tensor) -> None:
        if name not in found:
            found[name] = {kind: _Intake(groups, neighbours) for kind in kinds}
        own = found[name]
        own[passes[-1]].add(features, samples[-1])
        if passes[-1] == "perturbed":
            own["change"].add(features - kept.pop(name), samples[-1])
        elif perturbation is not None:
            kept[name] = features.clone()

    watch = partial(watching, model, layers, take, maps=maps, mask=mask)
    with watch() if perturbation is None else contextlib.nullcontext():
        for inputs, y, n in batches(model, data, batch_size=batch_size):
            passes[-1], samples[-1] = "clean", n
            if perturbation is None:
                run(model, inputs)
                continue
            # An attack runs the model itself: hooks must not be there meanwhile.
            other = _perturbed(perturbation, model, inputs, y)
            with watch():
                run(model, inputs)
                passes[-1] = "perturbed"
                run(model, other)
    return {
        name: LayerDimensions(**{kind: own[kind].compute(f"layer {name!r}") for kind in kinds})
        for name, own in found.items()
    }


def _perturbed(
    perturbation: Perturbation, model: nn.Module, inputs: Any, y: Tensor | None
) -> Tensor:
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"data: a perturbation takes one tensor of inputs, got {type(inputs).__name__}"
        )
    other = perturbation(model, inputs.clone(), None if y is None else y.to(inputs.device))
    if not isinstance(other, Tensor) or other.shape != inputs.shape:
        got = tuple(other.shape) if isinstance(other, Tensor) else type(other).__name__
        raise ValueError(f"perturbation must keep the shape {tuple(inputs.shape)}, got {got}")
    return other.detach()


def _check_sizes(groups: int, neighbours: int) -> None:
    check_whole(groups=groups, neighbours=neighbours)
    if groups < 2 or neighbours < 3:
        raise ValueError(
            f"groups must be at least 2 and neighbours 3, got {groups} and {neighbours}"
        )


class _Intake:
    """Rows batch by batch: their moments, and the first of them for neighbours."""

    def __init__(self, groups: int, neighbours: int) -> None:
        self._moments = GroupedMoments(groups)
        self._neighbours = neighbours
        self._first: list[Tensor] = []
        self._size = 0.0  # sum of squares, to tell constant features
        self._eps = 0.0

    def add(self, rows: Tensor, samples: int) -> None:
        wide = rows if rows.dtype == torch.float64 else rows.float()
        room = self._neighbours - self._moments.n
        if room > 0:
            self._first.append(wide[:room].detach().clone())
        self._size += float(wide.detach().double().square().sum())
        self._eps = max(self._eps, torch.finfo(wide.dtype).eps)
        self._moments.add(wide, samples=samples)

    def compute(self, whose: str) -> Dimensions:
        """The indices; an error begins with ``whose`` rows they are."""
        moments, first = self._moments, torch.cat(self._first)
        if moments.n < 3:
            raise ValueError(f"{whose} must have at least three samples, got {moments.n}")
        if not np.isfinite(self._size):
            raise ValueError(f"{whose} must have finite activations, got NaN or Inf")
        spectra = moments.spectra()
        if is_rounding(float(spectra[0].sum()), self._size, self._eps):
            spectra = [torch.zeros_like(values) for values in spectra]
        return Dimensions(
            _estimate([components_for(values, 0.9) for values in spectra]),
            _estimate([components_for(values, 0.95) for values in spectra]),
            _estimate([participation_ratio(values) for values in spectra]),
            _estimate(_two_nn_without(first, moments.number)),
            first.shape[1],
            moments.n,
        )


def _two_nn_without(rows: Tensor, number: Tensor | None) -> list[float]:
    """The estimate of all rows, and without the ratios of each group, where these are known.

    Their neighbours stay: looked for anew among fewer samples they vary by more than with new
    samples, and errors come out half as large again as they are.
    """
    ratios = _ratios(rows)
    own = torch.empty(0, dtype=torch.int64) if number is None else number[: len(rows)]
    return [_slope(ratios), *(_slope(ratios[own != g]) for g in sorted(set(own.tolist())))]


def _estimate(values: list[float]) -> Estimate:
    left_out: Array = np.array(values[1:], dtype=np.float64)
    return jackknife(values[0], left_out)
