"""Factorisations: rank, conditioning, constant and dependent features, few samples, precision."""

from __future__ import annotations

import pytest
import torch

from repsim_fast.similarity import (
    UndefinedError,
    canonical_correlations,
    cca,
    cka,
    prepare,
    procrustes_similarity,
    pwcca,
    shape_distance,
    svcca,
)


def true_correlations(x: torch.Tensor, y: torch.Tensor, rank: int | None = None) -> torch.Tensor:
    """From singular vectors in float64; of x the first `rank` ones."""
    qs = []
    for m, k in ((x, rank), (y, None)):
        m = m.double()
        qs.append(torch.linalg.svd(m - m.mean(0), full_matrices=False)[0][:, :k])
    return torch.linalg.svdvals(qs[0].T @ qs[1])


def spread_features(n: int, p: int, condition: float) -> torch.Tensor:
    """Features whose singular values fall evenly (in logarithm) over the condition number."""
    u = torch.linalg.qr(torch.randn(n, p, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(p, p, dtype=torch.float64))[0]
    u = torch.linalg.qr(u - u.mean(0))[0]
    return u * torch.logspace(0, -torch.tensor(condition).log10(), p).double() @ v


@pytest.mark.parametrize("condition", [1e0, 1e2, 1e3, 1e4, 1e5])
def test_float32_basis_is_as_good_as_a_float32_householder_one(condition):
    """All three ways of forming it: in float32, in float64, and in two float64 passes."""
    x = spread_features(400, 40, condition).float()
    y = (x / x.std() + torch.randn(400, 40)) @ torch.randn(40, 30)
    truth = true_correlations(x, y)
    prepared = prepare(x)
    assert prepared.rank == 40
    q = prepared.basis.double()
    assert float((q.T @ q - torch.eye(40)).abs().max()) < 2e-6
    torch.testing.assert_close(
        prepared.basis @ prepared.coordinates, prepared.centered, atol=3e-7, rtol=1e-4
    )
    householder = torch.linalg.qr(x - x.mean(0))[0]
    plain = torch.linalg.svdvals(householder.T @ torch.linalg.qr(y - y.mean(0))[0])
    ours = canonical_correlations(prepared, y)
    plain_error = float((plain - truth).abs().max())
    assert float((ours - truth).abs().max()) <= 2 * plain_error + 3e-7


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e6, 1e9, 1e12])
def test_float64_basis_keeps_float64_accuracy(condition):
    x = spread_features(200, 20, condition)
    q = prepare(x).basis
    assert q.shape == (200, 20)
    assert float((q.T @ q - torch.eye(20)).abs().max()) < 1e-13
    y = torch.randn(200, 12, dtype=torch.float64)
    found, truth = canonical_correlations(x, y), true_correlations(x, y)
    assert float((found - truth).abs().max()) < 1e-13 * condition + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_dependent_features_do_not_count(dtype, mean):
    """Products of a narrow layer, as rounded in its own dtype."""
    narrow = torch.randn(300, 12).relu()
    x = (narrow @ torch.randn(12, 30) + mean).to(dtype)
    if dtype == torch.float64:
        x = narrow.double() @ torch.randn(12, 30, dtype=torch.float64) + mean
    assert prepare(x).rank == 12


def test_rank_deficient_layers_have_the_correlations_of_their_span():
    full = torch.randn(300, 10)
    y = torch.randn(300, 8) + full[:, :8]
    wide = torch.cat([full, full[:, :4], 2 * full[:, 1:3] - full[:, 3:5]], dim=1)
    expected = cca(full, y)
    torch.testing.assert_close(cca(wide, y), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(cca(y, wide), expected, atol=1e-6, rtol=0)
    dead = torch.cat([full, torch.zeros(300, 3), torch.full((300, 2), 7.3)], dim=1)
    assert prepare(dead).rank == 10
    torch.testing.assert_close(cca(dead, y), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(pwcca(dead, y), pwcca(full, y), atol=1e-6, rtol=0)
    torch.testing.assert_close(svcca(dead, y), svcca(full, y), atol=1e-6, rtol=0)


def test_small_directions_of_float32_features_count():
    """1e-5 of the largest, far above rounding: NumPy's n * eps rule would drop them."""
    x = spread_features(2000, 20, 1e5).float()
    assert prepare(x).rank == 20
    singular = torch.linalg.svdvals((x - x.mean(0)).double())
    assert int((singular > singular[0] * 2000 * torch.finfo(torch.float32).eps).sum()) < 20


def test_a_large_mean_costs_no_accuracy():
    x, y = torch.randn(300, 10), torch.randn(300, 12)
    y[:, :10] += x
    for mean in (1.0, 10.0, 100.0):
        shifted = x + mean
        # What rounding at this mean did to the features is not ours to undo.
        truth = true_correlations(shifted, y).mean()
        assert abs(float(cca(shifted, y)) - float(truth)) < 1e-6


@pytest.mark.parametrize(
    "constant",
    [torch.zeros(20, 3), torch.full((20, 3), 0.1) * 3, torch.arange(3).float().expand(20, 3) * 1e4],
)
def test_constant_representations_are_refused(constant):
    x = torch.randn(20, 4)
    for measure in (cca, svcca, procrustes_similarity):
        with pytest.raises(UndefinedError, match="y: expected features that vary, got 20 equal"):
            measure(x, constant)
        with pytest.raises(ValueError, match="x: "):  # UndefinedError is a ValueError
            measure(constant, x)


def test_more_features_than_samples():
    """The sample side: same values for measures of the Gram, leading components for svcca."""
    x, y = torch.randn(40, 100), torch.randn(40, 300)
    y[:, :100] += 3 * x
    torch.testing.assert_close(
        procrustes_similarity(x, y), procrustes_similarity(x.double(), y.double()).float()
    )
    a = svcca(x, y, components=5)
    torch.testing.assert_close(
        a, svcca(x.double(), y.double(), components=5).float(), atol=1e-5, rtol=0
    )
    with pytest.raises(UndefinedError, match=r"x: cca needs more samples.*39 independent features"):
        cca(x, y)
    # Wide, but of low rank: nothing is saturated.
    low = x[:, :5] @ torch.randn(5, 100)
    torch.testing.assert_close(cca(low, y[:, :10]), cca(x[:, :5], y[:, :10]), atol=1e-5, rtol=0)


def test_scores_have_the_gram_of_the_features():
    for n, p in ((30, 10), (30, 30), (30, 200)):
        prepared = prepare(torch.randn(n, p, dtype=torch.float64) + 3)
        gram = prepared.centered @ prepared.centered.T
        torch.testing.assert_close(prepared.scores @ prepared.scores.T, gram)
        assert prepared.scores.shape == (n, min(n, p))
        raw = prepared.features @ prepared.features.T
        torch.testing.assert_close(prepared.raw_scores @ prepared.raw_scores.T, raw)
    duplicates = torch.randn(10, 100).repeat(3, 1)  # a Gram that has no Cholesky factor
    prepared = prepare(duplicates)
    torch.testing.assert_close(
        prepared.scores @ prepared.scores.T,
        prepared.centered @ prepared.centered.T,
        atol=1e-3,
        rtol=1e-4,
    )


def test_correlations_that_dimensions_force_are_announced():
    x, y = torch.randn(30, 20), torch.randn(30, 15)
    with pytest.warns(UserWarning, match="6 canonical correlations are 1 whatever the data"):
        value = canonical_correlations(x, y)
    assert int((value > 1 - 1e-5).sum()) == 6
    with pytest.warns(UserWarning, match="whatever the data"):
        cca(x, y)


def test_each_factorisation_is_computed_once(monkeypatch):
    from repsim_fast.similarity.base import factor

    calls = []
    original = factor.cholesky_basis
    monkeypatch.setattr(factor, "cholesky_basis", lambda *a: calls.append(1) or original(*a))
    x, others = prepare(torch.randn(50, 5)), [torch.randn(50, 6) for _ in range(3)]
    for y in others:
        cca(x, prepare(y))
        pwcca(x, prepare(y))
    assert len(calls) == 1 + 2 * 3
    assert prepare(x) is x
    assert "basis" not in repr(prepare(torch.randn(5, 2)))


def test_gradients_need_full_column_rank():
    x = torch.randn(30, 5)
    x = torch.cat([x, x[:, :1]], dim=1).requires_grad_()
    with pytest.raises(UndefinedError, match="gradients need features of full column rank"):
        cca(x, torch.randn(30, 4))
    x = torch.randn(30, 5, requires_grad=True)
    cca(x, torch.randn(30, 4)).backward()
    assert bool(torch.isfinite(x.grad).all())


def test_gradients_do_not_hang_on_what_was_asked_before():
    """A measure that needs the spectrum, and one that needs a basis with a gradient after it."""
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 4, dtype=torch.float64)
    x.requires_grad_()
    alone = torch.autograd.grad(cca(x, y), x)
    prepared = prepare(x)
    svcca(prepared, y, components=2)
    torch.testing.assert_close(torch.autograd.grad(cca(prepared, y), x), alone)
    assert torch.autograd.gradcheck(lambda a: shape_distance(a, y, alpha=0.5), x)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.float16, 1e3), (torch.bfloat16, 1e4), (torch.float32, 1e7), (torch.float64, 1e15)],
    ids=str,
)
@pytest.mark.parametrize("measure", [cca, svcca, pwcca, procrustes_similarity, cka])
def test_a_large_constant_feature_hides_no_others(measure, dtype, value):
    """Its rounding is the same for all samples, and gone with the mean."""
    x = torch.randn(200, 6).to(dtype)
    y = (x.double() @ torch.randn(6, 5).double() + torch.randn(200, 5).double()).to(dtype)
    with_constant = torch.cat([x, torch.full((200, 1), value, dtype=dtype)], dim=1)
    if measure in (cca, svcca, pwcca):
        assert prepare(with_constant).rank == 6
    torch.testing.assert_close(measure(with_constant, y), measure(x, y), rtol=1e-5, atol=0)


def test_noncontiguous_and_transposed_features():
    x, y = torch.randn(20, 60).T, torch.randn(120, 9)[::2]
    torch.testing.assert_close(cca(x, y), cca(x.contiguous(), y.contiguous()))
    torch.testing.assert_close(cka(x, y), cka(x.contiguous(), y.contiguous()))
