"""Standard errors against known ones, permutation tests against their meaning."""

from __future__ import annotations

import pytest
import torch

from python_tests.support import definitions
from repsim_fast import similarity
from repsim_fast.similarity import (
    bootstrap,
    get_measure,
    grid,
    jackknife,
    permutation_test,
)

PAIRED = [
    n for n in definitions.of_few_features() if "multiscale" not in n and "difference" not in n
]


def signal(n: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 3)
    return x, x @ torch.randn(3, 4) + noise * torch.randn(n, 4)


def test_jackknife_is_the_textbook_formula():
    x, y = signal(60)
    result = jackknife("rv_coefficient", [x], [y], groups=60)
    values = torch.stack(
        [
            grid("rv_coefficient", [x[k]], [y[k]])[0, 0]
            for k in (torch.arange(60) != i for i in range(60))
        ]
    )
    mean = values.mean()
    error = (59 / 60 * (values - mean).square().sum()).sqrt()
    torch.testing.assert_close(result.standard_error[0, 0], error, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(
        result.bias[0, 0], 59 * (mean - result.value[0, 0]), atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("resampled", ["jackknife", "bootstrap"])
def test_standard_errors_are_the_spread_over_repetitions(resampled):
    """Correlation of one feature with another: √n times the spread is known, (1 - ρ²)."""
    rho, n = 0.6, 200
    estimates, errors = [], []
    for _ in range(60):
        x = torch.randn(n, 1)
        y = rho * x + (1 - rho**2) ** 0.5 * torch.randn(n, 1)
        if resampled == "jackknife":
            result = jackknife("cca", [x], [y], groups=10)
        else:
            result = bootstrap("cca", [x], [y], resamples=20)
        estimates.append(float(result.value))
        errors.append(float(result.standard_error))
    known = (1 - rho**2) / n**0.5
    assert sum(errors) / len(errors) == pytest.approx(known, rel=0.1)
    assert float(torch.tensor(estimates).std()) == pytest.approx(known, rel=0.3)


@pytest.mark.parametrize("name", definitions.of_few_features())
def test_resampling_of_every_measure_is_that_of_its_values(name):
    """The batched pair, the grid, and values one by one agree."""
    x, y = signal(40)
    options = {"k": 5} if hasattr(get_measure(name), "k") else {}
    pair = jackknife(name, [x], [y], groups=4, **options)
    layers = jackknife(name, [x, y], groups=4, **options)
    torch.testing.assert_close(
        layers.standard_error[0, 1], pair.standard_error[0, 0], atol=1e-5, rtol=1e-3
    )
    kept = [torch.arange(40) % 4 != g for g in range(4)]
    values = torch.stack([grid(name, [x[k]], [y[k]], **options)[0, 0] for k in kept])
    error = (values.var() * 9 / 4).sqrt()
    torch.testing.assert_close(pair.standard_error[0, 0], error, atol=1e-5, rtol=1e-3)
    assert bool(torch.isfinite(layers.standard_error).all())


@pytest.mark.parametrize("name", definitions.of_few_features())
def test_groups_and_clusters_of_different_sizes(name):
    x, y = signal(40)
    options = {"k": 5} if hasattr(get_measure(name), "k") else {}
    pair = jackknife(name, [x], [y], groups=3, **options)
    layers = jackknife(name, [x, y], groups=3, **options)
    torch.testing.assert_close(
        pair.standard_error[0, 0], layers.standard_error[0, 1], atol=1e-5, rtol=1e-3
    )
    clusters = torch.arange(40).square() // 100  # 16 of them, of 1 to 10 samples
    drawn = bootstrap(name, [x], [y], clusters=clusters, resamples=3, **options)
    grids = bootstrap(name, [x, y], clusters=clusters, resamples=3, **options)
    torch.testing.assert_close(
        drawn.standard_error[0, 0], grids.standard_error[0, 1], atol=1e-5, rtol=1e-3
    )


def test_clusters_are_left_out_together():
    """Each sample ten times over: as independent samples they promise too much."""
    x, y = signal(40)
    clusters = torch.arange(40).repeat_interleave(10) * 7 + 3
    many = [m.repeat_interleave(10, dim=0) for m in (x, y)]
    one = jackknife("rv_coefficient", [x], [y], groups=40).standard_error
    together = jackknife("rv_coefficient", many[:1], many[1:], groups=40, clusters=clusters)
    torch.testing.assert_close(together.standard_error, one, rtol=1e-3, atol=0)
    apart = jackknife("rv_coefficient", many[:1], many[1:], groups=40)
    assert float(apart.standard_error) < 0.6 * float(one)
    drawn = bootstrap("rv_coefficient", many[:1], many[1:], clusters=clusters, resamples=200)
    assert float(drawn.standard_error) == pytest.approx(float(one), rel=0.4)


def test_seeds_decide_and_global_state_does_not():
    x, y = signal(30)
    state = torch.get_rng_state()
    first = bootstrap("rv_coefficient", [x], [y], resamples=10, seed=3)
    torch.randn(5)
    again = bootstrap("rv_coefficient", [x], [y], resamples=10, seed=3)
    assert torch.equal(first.standard_error, again.standard_error)
    torch.set_rng_state(state)
    permutation_test("cka", x, y, permutations=10)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", PAIRED)
def test_permutations_of_every_measure(name):
    """Views are permuted without factorising again: the same as permuting the samples."""
    x, y = signal(40, noise=0.3)
    options = {"k": 5} if hasattr(get_measure(name), "k") else {}
    test = permutation_test(name, x, y, permutations=9, seed=1, **options)
    generator = torch.Generator().manual_seed(1)
    orders = [torch.randperm(40, generator=generator) for _ in range(9)]
    values = torch.stack([grid(name, [x], [y[o]], **options)[0, 0] for o in orders])
    torch.testing.assert_close(test.null, values, atol=2e-5, rtol=1e-4)
    assert test.p_value == pytest.approx(1 / 10)  # more alike than all permutations


def test_p_values_of_unrelated_representations_are_uniform():
    values = [
        permutation_test("cka", torch.randn(20, 3), torch.randn(20, 4), permutations=19, seed=s)
        for s in range(200)
    ]
    p = torch.tensor([v.p_value for v in values])
    for level in (0.1, 0.25, 0.5, 0.75):
        assert float((p <= level).float().mean()) == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [n for n in PAIRED if get_measure(n).min_samples <= 4])
def test_permutations_that_change_nothing_count_as_alike(name, dtype):
    """Of four samples there are 24 orders; their own comes up too, added up in another order."""
    options = {"k": 1} if hasattr(get_measure(name), "k") else {}
    p = 3 if name in ("rsa", "cknna") else 1  # correlations, and cosines that vary, need more
    for seed in range(6):
        x, y = torch.randn(4, p, dtype=dtype), torch.randn(4, p, dtype=dtype)
        test = permutation_test(name, x, y, permutations=60, seed=seed, **options)
        sign = 1 if get_measure(name).info.kind == "similarity" else -1
        as_alike = sign * (test.null - test.value) >= -1e-5
        assert test.p_value == pytest.approx((1 + int(as_alike.sum())) / 61)


def test_distances_are_small_for_alike_representations():
    x, y = signal(40, noise=0.1)
    assert permutation_test("procrustes_distance", x, y, permutations=50).p_value < 0.02


@pytest.mark.parametrize("name", ["cka", "procrustes_similarity", "rsa"])
def test_a_resample_without_a_value_is_drawn_again(name):
    """Of four samples one resample in 64 is a single one four times."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 5, generator=generator) for _ in range(2))
    result = bootstrap(name, [x], [y], resamples=300)
    assert bool(torch.isfinite(result.standard_error).all())
    layers = bootstrap(name, [x, y], resamples=300)
    assert bool(torch.isfinite(layers.standard_error).all())


def test_a_measure_without_a_value_for_any_resample_says_so():
    class OnlyWhole(type(get_measure("rv_coefficient"))):
        def view(self, x):
            if len(torch.unique(x.features[:, 0])) < 30:
                raise similarity.UndefinedError("x: of whole samples only")
            return super().view(x)

    x, y = torch.randn(30, 2), torch.randn(30, 2)
    with pytest.raises(similarity.UndefinedError, match="of whole samples only"):
        bootstrap(OnlyWhole(), [x], [y], resamples=2)
