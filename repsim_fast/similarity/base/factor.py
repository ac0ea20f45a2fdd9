"""Orthonormal bases and spectra of centred features, each from the smaller of two Gram matrices.

Squaring a matrix squares its condition number, so Grams are taken, factorised and inverted in
float64. For float32 features that leaves directions down to 1e-8 of the largest exact, far below
what rounding the features themselves has destroyed. For float64 features it does not, and wherever
the Gram could not resolve a direction an SVD of the features takes its place.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram

# A direction is kept when its singular value exceeds CUTOFF * eps(dtype) * rms(x) * (√n + √p).
# Independent rounding errors of x, uniform in ±eps/2 of an entry, make a matrix whose largest
# singular value is 0.29 eps rms(x) (√n + √p). The factor leaves room for features that are sums of
# many products, rounded again and again.
CUTOFF = 4.0

# What the estimate of the smallest singular value may be too large by.
SLACK = 4.0

# Up to this condition number ‖X‖_F / σ_min a basis of float32 features is formed in float32.
# Canonical correlations are then off by 3e-7 at most, as with a float32 Householder QR, and by
# less on average.
FLOAT32_CONDITION = 1024.0

# Beyond this one, one pass in float64 leaves 1e-16 * 1e4² = 1e-8 of non-orthogonality, and a second
# pass removes it ("CholeskyQR2"). It needs a condition number below 1 / √eps to work at all.
ONE_PASS_CONDITION = 1e4
TWO_PASS_CONDITION = 1e7

# Features a block when a Gram of samples is summed in float64.
BLOCK = 2048


class Eigen(NamedTuple):
    """Singular values and vectors of centred features: values (m,) float64, falling, all of them.

    Of left (n, m) and right (p, m) one may be missing.
    """

    values: Tensor
    left: Tensor | None
    right: Tensor | None


def centred(
    x: Tensor,  # (n, p)
) -> Tensor:
    """Removes feature means twice: the first mean is rounded to a step of its own size."""
    x = x - x.mean(dim=0)
    return x - x.mean(dim=0)


def cutoff(
    norm: float,
    n: int,
    p: int,
    dtype: torch.dtype,
) -> float:
    """Largest singular value that rounding of features of this norm may have made."""
    return CUTOFF * torch.finfo(dtype).eps * norm * (1 / math.sqrt(n) + 1 / math.sqrt(p))


def feature_gram(
    x: Tensor,  # (n, p) centred
) -> Tensor:
    """XᵀX in float64 (p, p)."""
    return centered_gram(x.double().T, centering="none")


def sample_gram(
    x: Tensor,  # (n, p) centred
) -> Tensor:
    """X Xᵀ in float64 (n, n), a block of features after the other to bound memory."""
    blocks = [
        centered_gram(part.double(), centering="none") for part in torch.split(x, BLOCK, dim=1)
    ]
    return torch.stack(blocks).sum(dim=0) if len(blocks) > 1 else blocks[0]


def eigen(
    x: Tensor,  # (n, p) centred
) -> Eigen:
    """All singular values, with the vectors that come for free."""
    if x.dtype == torch.float64:
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        return Eigen(values, left, right.mH)
    tall = x.shape[0] >= x.shape[1]
    squares, vectors = torch.linalg.eigh(feature_gram(x) if tall else sample_gram(x))
    values = squares.flip(-1).clamp_min(0.0).sqrt()
    vectors = vectors.flip(-1)
    return Eigen(values, None, vectors) if tall else Eigen(values, vectors, None)


def left_vectors(
    x: Tensor,  # (n, p) centred
    decomposed: Eigen,
    k: int,
) -> Tensor:
    """The first k left singular vectors (n, k), in the dtype of x."""
    if decomposed.left is not None:
        return decomposed.left[:, :k].to(x.dtype)
    assert decomposed.right is not None
    values = decomposed.values[:k]
    right = decomposed.right[:, :k] / values
    condition = float((torch.linalg.vector_norm(values) / values[-1]).detach())
    if condition <= FLOAT32_CONDITION:
        return x @ right.to(x.dtype)
    basis = x.double() @ right
    return (basis if condition <= ONE_PASS_CONDITION else _again(basis)).to(x.dtype)


def cholesky_basis(
    x: Tensor,  # (n, p) centred, n >= p
    least: float,
) -> tuple[Tensor, Tensor] | None:
    """Orthonormal basis Q (n, p) and triangular R (p, p) with X = QR, or None.

    None where a singular value may be below ``least``, or is too small for this method.
    """
    wide = x.double()
    gram = centered_gram(wide.T, centering="none")
    lower, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return None
    norm = math.sqrt(float(gram.detach().trace()))
    smallest = _smallest_singular_value(lower.detach())
    # Of float32 features whatever exceeds the cut-off is well resolved.
    resolved = norm / TWO_PASS_CONDITION if x.dtype == torch.float64 else 0.0
    if smallest / SLACK <= max(least, resolved):
        return None
    upper, condition = lower.mT, norm / smallest
    if x.dtype == torch.float32 and condition <= FLOAT32_CONDITION:
        basis = torch.linalg.solve_triangular(upper.to(x.dtype), x, upper=True, left=False)
        return basis, upper.to(x.dtype)
    basis = torch.linalg.solve_triangular(upper, wide, upper=True, left=False)
    if x.dtype == torch.float64 or condition > ONE_PASS_CONDITION:
        second = torch.linalg.cholesky(centered_gram(basis.T, centering="none")).mT
        basis = torch.linalg.solve_triangular(second, basis, upper=True, left=False)
        upper = second @ upper
    return basis.to(x.dtype), upper.to(x.dtype)


def square_root(
    gram: Tensor,  # (n, n) float64, positive semidefinite
) -> Tensor:
    """A factor Z (n, k) with Z Zᵀ = gram: triangular if it can be, otherwise by eigenvectors."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        values, vectors = torch.linalg.eigh(gram)
        factor = vectors * values.clamp_min(0.0).sqrt()
    return factor


def _again(
    basis: Tensor,  # (n, k) almost orthonormal
) -> Tensor:
    upper = torch.linalg.cholesky(centered_gram(basis.T, centering="none")).mT
    again: Tensor = torch.linalg.solve_triangular(upper, basis, upper=True, left=False)
    return again


def _smallest_singular_value(
    lower: Tensor,  # (p, p)
) -> float:
    """Smallest singular value of a triangular factor by inverse iteration, from above."""
    p = lower.shape[0]
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(p, min(4, p), generator=generator, dtype=lower.dtype).to(lower.device)
    for _ in range(3):
        block = torch.cholesky_solve(block / torch.linalg.vector_norm(block, dim=0), lower)
    return 1.0 / math.sqrt(float(torch.linalg.vector_norm(block, dim=0).max()))
