"""Left singular vectors from eigenvectors of squares: as good as an SVD where values differ."""

from __future__ import annotations

import pytest
import torch

from repsim_fast.similarity.base.pairs import Batch, padded
from repsim_fast.similarity.base.spectral import left_vectors, nuclear_norm, singular_vectors


def with_values(m: int, n: int, values: torch.Tensor) -> torch.Tensor:
    k = len(values)
    u = torch.linalg.qr(torch.randn(m, k, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, k, dtype=torch.float64))[0]
    return (u * values) @ v.T


def error(u: torch.Tensor, reference: torch.Tensor) -> float:
    """Largest distance of unit vectors, signs aside."""
    signs = (u * reference).sum(dim=0).sign()
    return float((u * signs - reference).norm(dim=0).max())


@pytest.mark.parametrize("shape", [(40, 40), (40, 70), (70, 40)])
def test_values_over_many_decades(shape):
    """float32, values from 1 to 1e-4: each vector as exact as the gaps allow an SVD."""
    values = torch.logspace(0, -4, 40).double()
    a = with_values(*shape, values)
    u, found = left_vectors(Batch([0], a.float()[None]))
    torch.testing.assert_close(found[0].double(), values, atol=3e-6, rtol=2e-2)
    reference = torch.linalg.svd(a, full_matrices=False)[0]
    by_svd = singular_vectors(Batch([0], a.float()[None]))[0][0].double()
    assert error(u[0].double(), reference) <= 10 * error(by_svd, reference) + 1e-6
    torch.testing.assert_close(u[0].T @ u[0], torch.eye(40), atol=3e-2, rtol=0)


def test_sizes_may_differ_within_a_batch():
    matrices = [
        with_values(m, n, torch.linspace(1, 0.05, min(m, n)).double())
        for m, n in ((6, 9), (9, 6), (9, 9), (1, 4), (4, 1))
    ]
    batch = Batch(list(range(5)), *padded(matrices))
    for flipped in (False, True):
        if flipped:
            batch = Batch(batch.numbers, batch.products.mT, batch.columns, batch.rows)
        u, values = left_vectors(batch)
        for b, matrix in enumerate(matrices):
            a = matrix.T if flipped else matrix
            m, k = a.shape[0], min(a.shape)
            reference, s, _ = torch.linalg.svd(a, full_matrices=False)
            assert error(u[b, :m, :k], reference) < 1e-10
            torch.testing.assert_close(values[b, :k], s)
            assert not bool(u[b, m:].any() or u[b, :, k:].any() or values[b, k:].any())


def test_zero_and_rank_deficient_matrices():
    zero = torch.zeros(1, 4, 5)
    u, values = left_vectors(Batch([0], zero))
    assert not bool(values.any())
    torch.testing.assert_close(u[0].T @ u[0], torch.eye(4))
    low = with_values(6, 6, torch.tensor([1.0, 0.5, 0.0, 0.0]).double())
    u, values = left_vectors(Batch([0], low[None]))
    torch.testing.assert_close(values[0, :2], torch.tensor([1.0, 0.5]).double())
    assert float(values[0, 2:].max()) < 1e-12
    torch.testing.assert_close(u[0].T @ u[0], torch.eye(6).double())


def test_nuclear_norm_of_padded_matrices():
    matrices = [torch.randn(3, 5), torch.randn(4, 2)]
    norms = nuclear_norm(Batch([0, 1], *padded(matrices)))
    expected = torch.stack([torch.linalg.svdvals(m).sum() for m in matrices]).double()
    torch.testing.assert_close(norms, expected, atol=1e-6, rtol=1e-6)
    assert norms.dtype == torch.float64
