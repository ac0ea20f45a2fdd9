"""Features with and without a dominant first component, which layers share or do not."""

import numpy as np
import pytest
import torch

from repsim_fast.analysis.components import (
    first_component_cosines,
    first_component_share,
    without_first_component,
)
from repsim_fast.similarity import cka

N, P = 200, 40


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dominated(seed, *, common):
    """Unrelated features, and one direction of 50 times their variance: shared, or its own."""
    scores = draw(N, 1, seed=99 if common else 50 + seed)
    return (
        5 + draw(N, P, seed=seed) + 50**0.5 * P**0.5 * scores * draw(1, P, seed=seed + 20) / P**0.5
    )


def test_shares_of_known_spectra():
    rotation = torch.linalg.qr(draw(P, P)).Q
    scores = torch.linalg.qr(draw(N, P) - draw(N, P).mean(0)).Q
    scores = torch.linalg.qr(scores - scores.mean(0)).Q
    x = 3 + scores * torch.tensor([3.0, *[1.0] * (P - 1)], dtype=torch.float64) @ rotation
    assert first_component_share(x) == pytest.approx(9 / (9 + P - 1))
    isotropic = (1 + (P / N) ** 0.5) ** 2 / P
    assert first_component_share(draw(N, P)) == pytest.approx(isotropic, rel=0.1)
    assert np.isnan(first_component_share(torch.ones(5, 3)))


def test_a_shared_dominant_component_makes_a_block_that_goes_with_it():
    layers = [dominated(seed, common=True) for seed in range(4)]
    assert min(map(first_component_share, layers)) > 0.9
    assert first_component_cosines(layers).min() > 0.99
    assert cka(layers[0], layers[1]) > 0.95
    rest = [without_first_component(x) for x in layers]
    assert abs(cka(rest[0], rest[1], estimator="unbiased")) < 0.05


def test_components_that_are_not_shared_make_no_block():
    layers = [dominated(seed, common=False) for seed in range(6)]
    assert min(map(first_component_share, layers)) > 0.9
    apart = first_component_cosines(layers)[np.triu_indices(6, 1)]
    assert apart.mean() == pytest.approx((2 / (np.pi * N)) ** 0.5, rel=0.5)


def test_a_block_without_a_dominant_component_stays():
    """Alike in many directions: the check must not explain every block away."""
    common = draw(N, P, seed=7)
    a, b = (
        common @ torch.linalg.qr(draw(P, P, seed=s)).Q + 0.1 * draw(N, P, seed=s) for s in (1, 2)
    )
    assert max(map(first_component_share, (a, b))) < 0.1
    assert cka(without_first_component(a), without_first_component(b)) > 0.9


def test_what_is_taken_away_is_the_first_component_alone():
    x = dominated(0, common=True).float()
    left = without_first_component(x)
    assert left.dtype == x.dtype
    assert left.mean(0).abs().max() < 1e-4
    whole, rest = (torch.linalg.svdvals((y - y.mean(0)).double()) for y in (x, left))
    torch.testing.assert_close(rest[:-1], whole[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [3, 10, 100, 1000])
@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1])
def test_what_rounding_leaves_of_a_constant_layer_is_no_component(n, value, dtype):
    constant = torch.full((n, 3), value, dtype=dtype)
    assert np.isnan(first_component_share(constant))
    cosines = first_component_cosines([constant, draw(n, 3)])
    assert np.isnan(cosines).tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("dtype", "mean"), [(torch.float32, 1e6), (torch.float16, 100.0), (torch.bfloat16, 10.0)]
)
def test_features_far_from_zero_lose_no_digits(dtype, mean):
    x = (draw(50, 6) + mean).to(dtype)
    centred = x.double() - x.double().mean(0)
    u, values, vt = torch.linalg.svd(centred, full_matrices=False)
    share = float(values[0].square() / values.square().sum())
    assert first_component_share(x) == pytest.approx(share, rel=1e-9)
    left = without_first_component(x)
    assert left.dtype == torch.float32
    expected = centred - values[0] * torch.outer(u[:, 0], vt[0])
    torch.testing.assert_close(left.double(), expected, rtol=0, atol=1e-6)


def test_bad_features_are_named():
    with pytest.raises(ValueError, match=r"features: expected a matrix .*, got shape \(3,\)"):
        first_component_share(torch.ones(3))
    with pytest.raises(ValueError, match=r"expected \(n_samples >= 2, n_features\), got shape"):
        first_component_share(torch.ones(1, 3))
    with pytest.raises(ValueError, match="features: expected finite values, got 1 NaN"):
        without_first_component(torch.tensor([[1.0, float("nan")], [2.0, 3.0]]))
    with pytest.raises(TypeError, match=r"features: expected a torch\.Tensor, got ndarray"):
        first_component_cosines([np.ones((3, 2))])
    with pytest.raises(ValueError, match="layers: expected at least one, got none"):
        first_component_cosines([])
    with pytest.raises(ValueError, match=r"expected the same samples, got \[3, 4\] of them"):
        first_component_cosines([torch.ones(3, 2), torch.ones(4, 2)])
