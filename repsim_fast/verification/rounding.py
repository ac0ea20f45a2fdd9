"""How far floating-point numbers may lie from exact ones, so that bounds can allow for it."""

from __future__ import annotations

import torch
from torch import Tensor


def slack(terms: int, dtype: torch.dtype) -> float:
    """Relative error that sums of ``terms`` products may have, in any order of summation.

    A sum's own limit is terms u / (1 - terms u) times the sum of magnitudes, u = eps / 2 (Higham,
    "Accuracy and stability of numerical algorithms", 2002, section 3.1). An interval has three such
    errors (centre, radius and the network's own arithmetic) and some roundings: four cover them.

    Raises:
        ValueError: So many terms that the limit says nothing.
    """
    part = (terms + 8) * torch.finfo(dtype).eps / 2
    if part > 0.01:
        raise ValueError(
            f"model: sums of {terms:,} products cannot be bounded in {dtype}; "
            "use a model in torch.float64"
        )
    return 4 * part


def away(x: Tensor, upwards: bool) -> Tensor:
    """At least one number further up, or down; differentiable, as nextafter is not."""
    finite = torch.finfo(x.dtype)
    step = x.detach().abs() * finite.eps + finite.tiny
    return x + step if upwards else x - step


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Lower bounds in float64 as lower bounds in ``dtype``."""
    return x if x.dtype == dtype else away(x.to(dtype), upwards=False)
