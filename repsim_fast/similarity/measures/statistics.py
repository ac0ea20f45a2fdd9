"""Measures that compare one number of each representation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base.distances import squared_distances
from repsim_fast.similarity.base.measure import Info, check_range, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Number
from repsim_fast.similarity.streaming.samples import SampleMeasure


@dataclass(frozen=True)
class _Difference(SampleMeasure[Number]):
    """Absolute difference of a statistic."""

    min_samples: ClassVar[int] = 2

    def view(self, x: Prepared) -> Number:
        """The statistic, of finite features."""
        _ = x.raw_cutoff  # raises for NaN and Inf
        return Number(self.statistic(x).double())

    @abstractmethod
    def statistic(self, x: Prepared) -> Tensor:
        """Scalar."""

    def pairs(self, left: Sequence[Number], right: Sequence[Number], pairs: Pairs) -> Tensor:
        """Absolute differences."""
        return torch.stack([(left[i].value - right[j].value).abs() for i, j in pairs])


@register
@dataclass(frozen=True)
class MagnitudeDifference(_Difference):
    """See `magnitude_difference`."""

    info: ClassVar[Info] = Info(
        name="magnitude_difference",
        kind="distance",
        formula="|‖mean of xᵢ‖ - ‖mean of yᵢ‖|, features not centred",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation", "rotation"),
        differentiable="where it is not 0",
        cost="n p; 1",
        source="Wang et al. 2020; Klabunde et al. 2023",
        of_itself=0.0,
    )

    def statistic(self, x: Prepared) -> Tensor:
        """Norm of the mean sample."""
        norm: Tensor = torch.linalg.vector_norm(x.features.mean(dim=0, dtype=torch.float64))
        return norm


@register
@dataclass(frozen=True)
class ConcentricityDifference(_Difference):
    """See `concentricity_difference`."""

    info: ClassVar[Info] = Info(
        name="concentricity_difference",
        kind="distance",
        formula="|mean cos(xᵢ, mean x) - mean cos(yᵢ, mean y)|, features not centred",
        low=0.0,
        high=2.0,
        invariant_to=("permutation", "rotation", "scale"),
        differentiable="where it is not 0",
        cost="n p; 1",
        source="Wang et al. 2020; Klabunde et al. 2023",
        of_itself=0.0,
    )

    def statistic(self, x: Prepared) -> Tensor:
        """Mean cosine of the samples with their mean, samples of zeros left out."""
        features = x.features.double()
        mean = features.mean(dim=0)
        norms = torch.linalg.vector_norm(features, dim=1)
        known = norms > 0
        size = float(torch.linalg.vector_norm(mean.detach()))
        if not bool(known.any()) or size <= x.raw_cutoff / x.n_samples:
            raise UndefinedError(f"{x.name}: expected features with a mean other than zero")
        cosines = features[known] @ mean / (norms[known] * torch.linalg.vector_norm(mean))
        mean_cosine: Tensor = cosines.mean()
        return mean_cosine


@register
@dataclass(frozen=True)
class UniformityDifference(_Difference):
    """See `uniformity_difference`."""

    info: ClassVar[Info] = Info(
        name="uniformity_difference",
        kind="distance",
        formula="|log mean exp(-t‖xᵢ - xⱼ‖²) - log mean exp(-t‖yᵢ - yⱼ‖²)| over all n² pairs",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation", "rotation", "translation"),
        differentiable="where it is not 0",
        cost="n² p; 1",
        source="Wang and Isola 2020; Klabunde et al. 2023",
        of_itself=0.0,
    )
    t: float = 2.0

    def __post_init__(self) -> None:
        check_range("t", self.t, 0.0, math.inf, open_low=True)

    def statistic(self, x: Prepared) -> Tensor:
        """Log of the mean Gaussian potential."""
        exponents = -self.t * squared_distances(x).flatten().double()
        return torch.logsumexp(exponents, dim=0) - 2 * math.log(x.n_samples)


def magnitude_difference(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Difference of the norms of the mean samples.

    A distance in [0, ∞), in the unit of the features, which are not centred.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import magnitude_difference
        >>> value = magnitude_difference(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Wang et al., "Towards understanding the instability of network embedding", 2020.
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return MagnitudeDifference()(x, y)


def concentricity_difference(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Difference of the mean cosines of samples with their mean.

    A distance in [0, 2], of features that are not centred. Samples of zeros do not count.
    Arguments as for `magnitude_difference`.

    Raises:
        UndefinedError: Features have mean zero. A ValueError.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import concentricity_difference
        >>> value = concentricity_difference(torch.rand(50, 5), torch.rand(50, 8))

    References:
        Wang et al., "Towards understanding the instability of network embedding", 2020.
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return ConcentricityDifference()(x, y)


def uniformity_difference(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    t: float = 2.0,
) -> Tensor:
    """Difference of the logarithms of mean Gaussian potentials of pairs of samples.

    A distance in [0, ∞). A potential is exp(-t‖xᵢ - xⱼ‖²), averaged over all n² pairs, a sample
    with itself included; features of norm much above 1 leave only those.
    Arguments and errors as for `magnitude_difference`, and t above 0; constant representations are
    undefined.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import uniformity_difference
        >>> value = uniformity_difference(torch.rand(50, 5), torch.rand(50, 8))

    References:
        Wang and Isola, "Understanding contrastive representation learning through alignment and
        uniformity on the hypersphere", 2020.
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return UniformityDifference(t=t)(x, y)
