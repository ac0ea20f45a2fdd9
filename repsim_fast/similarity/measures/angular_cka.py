"""The angle of which biased linear CKA is the cosine, which is a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base.hsic import Linear, alignments, linear
from repsim_fast.similarity.base.measure import Info, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.streaming.samples import SampleMeasure

# From this CKA on an angle comes from the difference of the Grams: 1 - CKA has too few digits left.
CLOSE = 0.999


@register
@dataclass(frozen=True)
class AngularCKADistance(SampleMeasure[Linear]):
    """See `angular_cka_distance`."""

    info: ClassVar[Info] = Info(
        name="angular_cka_distance",
        title="angular CKA distance",
        kind="distance",
        formula="arccos of biased linear CKA",
        low=0.0,
        high=math.pi / 2,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="where it is not 0",
        cost="n p² (n² p for p ≥ n/2); n p² (n²)",
        source="Williams et al. 2021; Lange et al. 2023",
        of_itself=0.0,
        metric=True,
    )
    min_samples: ClassVar[int] = 2

    def view(self, x: Prepared) -> Linear:
        """The centred Gram, or features that it comes from."""
        return linear(x, "double")

    def pairs(self, left: Sequence[Linear], right: Sequence[Linear], pairs: Pairs) -> Tensor:
        """Angles between Grams."""
        cosines = alignments(left, right, pairs)
        close = (cosines.detach() > CLOSE).nonzero().flatten().tolist()
        angles = torch.arccos(cosines.clamp(0.0, CLOSE))
        if not close:
            return angles
        halves = [
            torch.linalg.vector_norm(
                left[i].triangle().vector.double() - right[j].triangle().vector.double()
            )
            / 2
            for i, j in (pairs[k] for k in close)
        ]
        which = torch.tensor(close, device=angles.device)
        return angles.index_put((which,), 2 * torch.arcsin(torch.stack(halves)))


def angular_cka_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Angle between centred linear Grams: arccos of biased linear CKA.

    A metric in [0, π/2], 0 for representations equal up to rotation, isotropic scaling and
    translation. (CKA itself, and 1 - CKA, break the triangle inequality.)

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; differentiable where it is
        not 0.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import angular_cka_distance
        >>> x = torch.randn(100, 5)
        >>> bool(angular_cka_distance(x, 2 * x + 1) < 1e-5)
        True

    References:
        Williams et al., "Generalized shape metrics on neural representations", 2021.
        Lange et al., "Deep networks as paths on the manifold of neural representations", 2023.
    """
    return AngularCKADistance()(x, y)
