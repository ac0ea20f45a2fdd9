"""Matrices with known singular values, and the measures of error that the SVD tests share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def with_values(values: Tensor, m: int, n: int) -> Tensor:
    """A float64 matrix (m, n) with these singular values (min(m, n),), to float64 rounding."""
    k = min(m, n)
    u = torch.linalg.qr(torch.randn(m, k, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, k, dtype=torch.float64)).Q
    return (u * values) @ v.T


def spectra(k: int) -> dict[str, Tensor]:
    """Hard cases for singular values (k,), descending."""
    one = torch.ones(k, dtype=torch.float64)
    steps = torch.arange(k, dtype=torch.float64) / max(k - 1, 1)
    half = one.clone()
    half[k // 2 :] = 0
    last = one.clone()
    last[-1] = 1e-9
    first = 1e-6 * one
    first[0] = 1
    return {
        "graded": 10 ** (-12 * steps),
        "equal": one,
        "clustered": 1 - 1e-7 * steps,
        "half rank": half,
        "one small": last,
        "one large": first,
    }


def exact_values(a: Tensor) -> npt.NDArray[np.longdouble]:
    """Singular values of a float64 matrix (m, n), descending, by Jacobi in long double."""
    columns = np.array(
        (a if a.shape[0] >= a.shape[1] else a.T).numpy(), dtype=np.longdouble
    ).T.copy()
    tolerance = 10 * np.finfo(np.longdouble).eps
    rotated = True
    while rotated:
        rotated = False
        for p, x in enumerate(columns):
            for y in columns[p + 1 :]:
                xx, yy, xy = x @ x, y @ y, x @ y
                if abs(xy) <= tolerance * np.sqrt(xx * yy):
                    continue
                rotated = True
                cotangent = (yy - xx) / (2 * xy)
                tangent = np.copysign(1, cotangent) / (abs(cotangent) + np.hypot(1, cotangent))
                c = 1 / np.hypot(1, tangent)
                x[:], y[:] = c * (x - tangent * y), c * (y + tangent * x)
    return np.sort(np.linalg.norm(columns, axis=1))[::-1]


def epsilons(values: Tensor, a: Tensor) -> float:
    """Largest error of singular values (B, k) of a (B, m, n), in ε σ₁ of a's dtype."""
    truth = torch.linalg.svdvals(a.detach().cpu().double())
    scale = truth[:, :1].clamp_min(1e-300) * torch.finfo(a.dtype).eps
    return float(((values.detach().cpu().double() - truth).abs() / scale).max())


def residual(u: Tensor, s: Tensor, vh: Tensor, a: Tensor) -> float:
    """Largest ‖a - U S Vh‖₂ of a batch, in ε ‖a‖₂ of a's dtype."""
    u, s, vh, a64 = (t.detach().cpu().double() for t in (u, s, vh, a))
    error = torch.linalg.matrix_norm(a64 - (u * s[:, None, :]) @ vh, ord=2)
    size = torch.linalg.matrix_norm(a64, ord=2).clamp_min(1e-300)
    return float((error / size).max()) / torch.finfo(a.dtype).eps


def obliqueness(columns: Tensor) -> float:
    """Largest ‖QᵀQ - I‖₂ of a batch of columns, in ε of their dtype."""
    q = columns.detach().cpu().double()
    eye = torch.eye(q.shape[2], dtype=torch.float64)
    deviation = torch.linalg.matrix_norm(q.mT @ q - eye, ord=2)
    return float(deviation.max()) / torch.finfo(columns.dtype).eps
