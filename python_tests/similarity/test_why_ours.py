"""Where public packages compute another number under the same name: their rule, written out, and a
property of the definition that it breaks and ours keeps. (docs/measures.md lists them.)"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from repsim_fast.similarity import (
    canonical_correlations,
    cca,
    cknna,
    get_measure,
    grid,
    gulp_distance,
    prepare,
    pwcca,
    rsm_norm_difference,
    second_order_cosine,
    svcca,
)


def centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(dim=0)


def orthonormal(n: int, k: int) -> torch.Tensor:
    """k orthonormal columns of mean 0."""
    q = torch.linalg.qr(torch.randn(n, k, dtype=torch.float64))[0]
    return torch.linalg.qr(centred(q))[0]


def layer(n: int = 200, p: int = 12) -> torch.Tensor:
    """Features as after a ReLU: means, and some larger than others."""
    return (torch.randn(n, p) * torch.linspace(2, 0.1, p) + 0.5).relu().double()


def test_svcca_keeps_the_share_of_variance_that_it_says():
    """ReSi: cumulated shares (up to 1) against 0.99 times the total variance."""
    x = layer()
    squares = torch.linalg.svdvals(centred(x)).square()
    share = squares.cumsum(0) / squares.sum()
    reached = (share >= 0.99 * squares.sum()).numpy()
    resi = int(np.argmax(reached)) + 1  # never reached, and argmax of nothing is 0
    assert not reached.any()
    assert float(share[resi - 1]) < 0.5
    ours = get_measure("svcca").kept(prepare(x))
    assert float(share[ours - 1]) >= 0.99 > float(share[ours - 2])
    assert ours > 5


def test_svcca_does_not_see_translation():
    """anatome: reduces first, by the sum of singular values of uncentred features."""

    def anatome_reduced(x: torch.Tensor) -> torch.Tensor:
        u, s, _ = torch.linalg.svd(x, full_matrices=False)
        k = int((s.cumsum(0) / s.sum() < 0.99).sum()) + 1
        return u[:, :k] * s[:k]

    x, y = layer(), layer()
    moved = x + 10
    theirs = [cca(anatome_reduced(m), anatome_reduced(y)) for m in (x, moved)]
    assert abs(float(theirs[0] - theirs[1])) > 1e-3
    torch.testing.assert_close(svcca(moved, y), svcca(x, y))


def variates(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Canonical correlations and unit variates of x."""
    qx, qy = (torch.linalg.qr(centred(m))[0] for m in (x, y))
    u, rho, _ = torch.linalg.svd(qx.T @ qy, full_matrices=False)
    return rho, qx @ u


def weighted(rho: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (rho * weights).sum() / weights.sum()


def test_pwcca_does_not_see_translation():
    """google/svcca (and ReSi, ecco): means go back into variates and features before weighing."""

    def google(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rho, h = variates(x, y)
        shifted = torch.linalg.qr(h + x.mean(dim=0))[0]
        return weighted(rho, (shifted.T @ x).abs().sum(dim=1))

    x, y = layer(), layer(p=15)
    y[:, :12] += x
    moved = x + torch.linspace(-3, 3, 12)
    assert abs(float(google(moved, y) - google(x, y))) > 1e-3
    torch.testing.assert_close(pwcca(moved, y), pwcca(x, y))


def test_pwcca_weighs_variates_of_features_not_coefficients():
    """Known by construction: weights 2, 1, 1 on correlations 0.9, 0.5, 0.1, hidden by a linear map.

    anatome orthonormalises coefficients, which depend on the coordinates of x. platonic-universe
    weighs whitened variates, all of which have variance 1.
    """
    q = orthonormal(100, 6)
    rho = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    x = q[:, :3] * torch.tensor([2.0, 1.0, 1.0])
    y = q[:, :3] * rho + q[:, 3:] * (1 - rho.square()).sqrt()
    truth = (2 * rho[0] + rho[1] + rho[2]) / 4
    torch.testing.assert_close(pwcca(x, y), truth)

    found, h = variates(x, y)
    coefficients = torch.linalg.lstsq(x, h).solution  # h = x @ coefficients
    anatome = weighted(found, (torch.linalg.qr(coefficients)[0].T @ x.T @ x).abs().sum(dim=1))
    whitened = weighted(found, h.square().sum(dim=0))
    assert abs(float(anatome - truth)) > 1e-2
    torch.testing.assert_close(whitened, cca(x, y))
    assert abs(float(whitened - truth)) > 1e-2


def test_mean_cca_counts_every_correlation():
    """ecco, latentis: the mean of those that make up 98 % of the sum. One shared feature of ten
    unrelated ones is a tenth, not nearly 1."""
    q = orthonormal(100, 19)
    x, y = q[:, :10], torch.cat([q[:, :1], q[:, 10:]], dim=1)
    rho = canonical_correlations(x, y)
    kept = int((rho.cumsum(0) / rho.sum() < 0.98).sum()) + 1
    assert float(rho[:kept].mean()) == pytest.approx(1.0)
    assert float(cca(x, y)) == pytest.approx(0.1)


def test_mean_cca_divides_by_the_rank():
    """sim_metric, netrep: by the number of features, so that copies of features lower it."""
    x, y = layer(p=5), layer(p=9)
    y[:, :5] += x
    copied = torch.cat([x, x[:, :3]], dim=1)
    by_features = canonical_correlations(copied, y).sum() / min(copied.shape[1], y.shape[1])
    assert float(by_features) < 0.7 * float(cca(x, y))
    torch.testing.assert_close(cca(copied, y), cca(x, y))


def test_centred_cca_does_not_see_translation():
    """The demo of Kornblith et al. leaves means in."""

    def demo(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        qx, qy = (torch.linalg.qr(m)[0] for m in (x, y))
        return (qx.T @ qy).square().sum() / min(x.shape[1], y.shape[1])

    x, y = torch.randn(100, 10).double(), torch.randn(100, 10).double()
    assert abs(float(demo(x + 1, y + 1) - demo(x, y))) > 1e-2
    ours = cca(x + 1, y + 1, summary="mean_squared")
    torch.testing.assert_close(ours, cca(x, y, summary="mean_squared"))


def test_debiased_cka_of_a_representation_with_itself_is_one():
    """PyPI repsim "song": a debiased numerator over biased denominators."""
    x = layer(n=40).numpy()
    n = len(x)
    k = centred(torch.from_numpy(x)) @ centred(torch.from_numpy(x)).T
    zeroed = k - torch.diag(k.diagonal())
    rows = zeroed.sum(dim=1)
    debiased = (
        (zeroed * zeroed).sum()
        + rows.sum() ** 2 / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (rows * rows).sum()
    ) / (n * (n - 3))
    biased = k.square().sum() / (n - 1) ** 2
    assert float(debiased / biased) < 0.95
    y = torch.from_numpy(x)
    assert float(grid("cka", [y], [y])) == pytest.approx(1.0, abs=1e-12)


def test_gulp_is_a_metric():
    """ReSi returns the square, for which the triangle inequality fails."""
    a, b = orthonormal(60, 2).T
    layers = [torch.stack([a + t * b], dim=1) for t in (0.0, 1.0, 3.0)]
    d = grid("gulp_distance", layers, ridge=0.01)
    assert float(d[0, 2]) <= float(d[0, 1] + d[1, 2])
    assert float(d[0, 2] ** 2) > float(d[0, 1] ** 2 + d[1, 2] ** 2)
    assert float(gulp_distance(layers[0], layers[2], ridge=0.01)) == pytest.approx(float(d[0, 2]))


def test_rsm_norm_difference_counts_every_pair_of_samples():
    """ReSi asks for the matrix norm "2", the largest singular value, of a square matrix."""
    x, y = layer(n=30), layer(n=30)
    difference = cdist(x, x) - cdist(y, y)
    by_pairs = np.sqrt(sum(difference[i, j] ** 2 for i in range(30) for j in range(30)))
    assert np.linalg.norm(difference, ord=2) < 0.95 * by_pairs
    assert float(rsm_norm_difference(x, y)) == pytest.approx(by_pairs)


def test_second_order_cosine_compares_similarities():
    """ReSi compares cosine distances: for near neighbours these are small numbers of any ratio,
    while the similarities, all near 1, hardly differ."""
    centre = torch.ones(5, dtype=torch.float64)
    x, y = (centre + 0.05 * torch.randn(30, 5) for _ in range(2))
    cosines = [1 - cdist(m, m, "cosine") for m in (x, y)]
    nearest = [np.argsort(-c, axis=1)[:, 1:6] for c in cosines]
    theirs, definition = [], []
    for i in range(30):
        union = sorted({*nearest[0][i], *nearest[1][i]})
        a, b = (c[i, union] for c in cosines)
        definition.append(a @ b / np.sqrt((a @ a) * (b @ b)))
        a, b = 1 - a, 1 - b
        theirs.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert np.mean(definition) > 0.9999
    assert np.mean(theirs) < 0.95
    assert float(second_order_cosine(x, y, k=5)) == pytest.approx(np.mean(definition), abs=1e-9)


def test_cknna_is_symmetric():
    """platonic-rep: HSIC₁ of kernels with zeros where samples are not common neighbours, which are
    no symmetric matrices."""

    def hsic1(k: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        n = len(k)
        corner = k.sum() * m.sum() / ((n - 1) * (n - 2))
        return (k * m.T).sum() + corner - 2 * (k @ m).sum() / (n - 2)

    def near(kernel: torch.Tensor, k: int) -> torch.Tensor:
        nearest = kernel.clone().fill_diagonal_(-torch.inf).topk(k, dim=1).indices
        return torch.zeros_like(kernel).scatter(1, nearest, 1.0)

    def platonic(x: torch.Tensor, y: torch.Tensor) -> float:
        kernels = [torch.nn.functional.normalize(m) for m in (x, y)]
        kernels = [m @ m.T for m in kernels]
        masks = [near(kernel, 5) for kernel in kernels]
        own = [hsic1(m * k, m * k) for m, k in zip(masks, kernels, strict=True)]
        both = masks[0] * masks[1]
        return float(hsic1(both * kernels[0], both * kernels[1]) / (own[0] * own[1]).sqrt())

    x = torch.randn(60, 6, dtype=torch.float64)
    y = x @ torch.randn(6, 8, dtype=torch.float64) + 0.5 * torch.randn(60, 8)
    assert abs(platonic(x, y) - platonic(y, x)) > 1e-6
    torch.testing.assert_close(cknna(x, y, k=5), cknna(y, x, k=5))
