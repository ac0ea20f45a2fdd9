"""Published values, and identities between measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repsim_fast.similarity import (
    angular_procrustes_distance,
    bures_distance,
    canonical_correlations,
    cca,
    cka,
    cka_rbf,
    eigenspace_overlap,
    grid,
    gulp_distance,
    linear_regression,
    procrustes_distance,
    procrustes_similarity,
    pwcca,
    rsa,
    rv_coefficient,
    shape_distance,
    svcca,
)


@pytest.fixture
def published() -> tuple[torch.Tensor, torch.Tensor]:
    """Data of the demo of "Similarity of neural network representations revisited"."""
    generator = np.random.RandomState(1337)
    x = generator.randn(100, 10)
    y = generator.randn(100, 10) + x
    return torch.from_numpy(x), torch.from_numpy(y)


def test_values_of_the_kornblith_demo(published):
    x, y = published
    assert float(cka(x, y, estimator="biased")) == pytest.approx(0.55761, abs=5e-6)
    assert float(cka(x, y)) == pytest.approx(0.51346, abs=5e-6)
    assert float(rv_coefficient(x, y)) == pytest.approx(0.55761, abs=5e-6)
    rbf = cka_rbf(x, y, bandwidth=0.5, estimator="biased")
    assert float(rbf) == pytest.approx(0.65483, abs=5e-6)
    # Its CCA is not centred (0.54312); this is the same with means removed.
    assert float(cca(x, y, summary="mean_squared")) == pytest.approx(0.54540, abs=5e-6)
    assert float(grid("cka", [x], [y])) == pytest.approx(0.51346, abs=5e-6)


def test_demo_values_in_float32(published):
    x, y = (m.float() for m in published)
    assert float(cka_rbf(x, y, estimator="biased")) == pytest.approx(0.65483, abs=6e-6)
    assert float(cca(x, y, summary="mean_squared")) == pytest.approx(0.54540, abs=6e-6)


def test_shape_metrics_join_procrustes_and_cca(published):
    x, y = published
    angle = angular_procrustes_distance(x, y)
    torch.testing.assert_close(shape_distance(x, y, alpha=1.0), angle)
    torch.testing.assert_close(shape_distance(x, y, alpha=0.0), cca(x, y).arccos())
    torch.testing.assert_close(procrustes_similarity(x, y), angle.cos())  # Bures similarity
    torch.testing.assert_close(procrustes_distance(x, y), 2 - 2 * angle.cos())
    between = float(shape_distance(x, y, alpha=0.5))
    assert not math.isclose(between, float(angle), rel_tol=1e-6)


def test_bures_distance_of_normalised_features_is_the_root_of_procrustes(published):
    x, y = ((m - m.mean(0)) / (m - m.mean(0)).norm() for m in published)
    torch.testing.assert_close(bures_distance(x, y), procrustes_distance(x, y).sqrt())


def test_squared_euclidean_distances_compared_by_centred_cosine_are_biased_cka(published):
    def centred(m: torch.Tensor) -> torch.Tensor:
        d = torch.cdist(m, m).square()
        return d - d.mean(0) - d.mean(1)[:, None] + d.mean()

    a, b = (centred(m) for m in published)
    cosine = (a * b).sum() / (a.norm() * b.norm())
    torch.testing.assert_close(cosine, cka(*published, estimator="biased"))


def test_canonical_correlations_and_what_is_made_of_them(published):
    x, y = published
    rho = canonical_correlations(x, y)
    assert rho.shape == (10,)
    assert bool((rho.diff() <= 0).all())
    assert float(rho.max()) <= 1 + 1e-12
    torch.testing.assert_close(rho.mean(), cca(x, y))
    torch.testing.assert_close(rho.square().mean(), cca(x, y, summary="mean_squared"))
    torch.testing.assert_close(svcca(x, y, variance=1.0), cca(x, y))
    # Without ridge: ranks less twice the squared correlations.
    squared = 20 - 2 * rho.square().sum()
    torch.testing.assert_close(gulp_distance(x, y, ridge=0.0).square(), squared)
    centred = [m - m.mean(0) for m in published]
    torch.testing.assert_close(eigenspace_overlap(*centred), rho.square().mean())


def test_one_canonical_correlation_is_the_correlation():
    x, y = torch.randn(40, 1).double(), torch.randn(40, 1).double()
    correlation = torch.corrcoef(torch.cat([x, y], dim=1).T)[0, 1]
    torch.testing.assert_close(cca(x, y), correlation.abs())
    torch.testing.assert_close(pwcca(x, y), correlation.abs())
    torch.testing.assert_close(linear_regression(x, y), correlation.square())
    torch.testing.assert_close(procrustes_similarity(x, y), correlation.abs())


def test_pwcca_of_orthonormal_features_weighs_by_rotation_only():
    """x with orthonormal columns and CCA directions along them: all weights are equal."""
    n = 64
    q = torch.linalg.qr(torch.randn(n, 9, dtype=torch.float64))[0]
    q = torch.linalg.qr(q - q.mean(0))[0]
    rho = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    x = q[:, :3]
    y = x * rho + q[:, 3:6] * (1 - rho.square()).sqrt()
    torch.testing.assert_close(canonical_correlations(x, y), rho)
    torch.testing.assert_close(pwcca(x, y), rho.mean())
    # Twice the first feature: its variate weighs twice as much, in x but not in y.
    x = x * torch.tensor([2.0, 1.0, 1.0]).double()
    torch.testing.assert_close(pwcca(x, y, side="x"), (2 * rho[0] + rho[1] + rho[2]) / 4)
    torch.testing.assert_close(pwcca(x, y, side="y"), rho.mean())


def test_known_correlations_are_found_whatever_the_sizes_of_features():
    """Correlations set by construction, then hidden behind badly conditioned linear maps."""
    n, k = 500, 8
    q = torch.linalg.qr(torch.randn(n, 2 * k, dtype=torch.float64))[0]
    q = torch.linalg.qr(q - q.mean(0))[0]
    rho = torch.linspace(0.95, 0.05, k).double()
    x, y = q[:, :k], q[:, :k] * rho + q[:, k:] * (1 - rho.square()).sqrt()
    for decades, tolerance in ((0, 1e-6), (2, 1e-6), (4, 1e-4)):
        spread = torch.logspace(0, -decades, k).double()
        mix = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64))[0]
        hidden = ((x * spread) @ mix + 5).float()
        found = canonical_correlations(hidden, y.float())
        # float32 features 5 from the origin: rounding is 3e-7 of entries of size 1e-2 * spread
        assert float((found - rho).abs().max()) < max(tolerance, 3e-5 * 10**decades)


def test_rsa_sees_monotone_changes_of_distances_only_in_pearson():
    x = torch.rand(30, 1).double()
    y = x.exp()  # monotone in one dimension, but distances change order
    assert float(rsa(x, 2 * x + 1, rdm="euclidean")) == pytest.approx(1.0)
    assert float(rsa(x, y, rdm="euclidean")) < 1
