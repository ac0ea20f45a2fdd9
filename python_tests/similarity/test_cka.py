from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from python_tests.support.op_tester import devices
from repsim_fast.similarity import cka, prepare


def cka_by_definition(x: torch.Tensor, y: torch.Tensor, estimator: str) -> float:
    """Independent of the package: Song et al. 2012, eq. 5 and Kornblith et al. 2019, eq. 3."""
    x, y = x.double(), y.double()
    n = len(x)

    def hsic(k, l):  # noqa: E741
        if estimator == "biased":
            h = torch.eye(n, dtype=torch.float64) - 1.0 / n
            return torch.trace(k @ h @ l @ h) / (n - 1) ** 2
        k, l = k.clone().fill_diagonal_(0), l.clone().fill_diagonal_(0)  # noqa: E741
        one = torch.ones(n, dtype=torch.float64)
        cross = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        return (torch.trace(k @ l) + cross - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))

    k, l = x @ x.T, y @ y.T  # noqa: E741
    return float(hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt())


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize(("n", "p", "q"), [(100, 5, 7), (100, 300, 200), (4, 2, 9), (60, 60, 60)])
def test_equals_the_definition_on_both_sides(device, estimator, n, p, q):
    x = torch.randn(n, p, dtype=torch.float64)
    y = x[:, : min(p, q)] @ torch.randn(min(p, q), q, dtype=torch.float64)
    value = cka(x.to(device), y.to(device), estimator=estimator)
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(cka_by_definition(x, y, estimator), abs=1e-11)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("shape", [(500, 20, 30), (60, 800, 500), (10, 3, 4)])
@pytest.mark.parametrize("mean", [0.0, 1.0, 10.0, 100.0])
def test_float32_keeps_its_accuracy_at_any_feature_mean(device, estimator, shape, mean):
    n, p, q = shape
    x = torch.randn(n, p) + mean
    y = (x[:, :2] - mean) @ torch.randn(2, q) + torch.randn(n, q) + mean
    expected = float(cka(x.double(), y.double(), estimator=estimator))
    assert float(cka(x.to(device), y.to(device), estimator=estimator)) == pytest.approx(
        expected, abs=1e-6
    )


def test_published_values():
    # Kornblith et al.'s demonstration: NumPy's legacy generator, seed 1337.
    np.random.seed(1337)  # noqa: NPY002
    x = np.random.randn(100, 10)  # noqa: NPY002
    y = np.random.randn(100, 10) + x  # noqa: NPY002
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    assert float(cka(x, y, estimator="biased")) == pytest.approx(0.55761, abs=5e-6)
    assert float(cka(x, y)) == pytest.approx(0.51346, abs=5e-6)


def test_unbiased_hsic_is_the_u_statistic():
    """Brute force over ordered quadruples (Song et al. 2012): the numerator for n = 6."""
    n = 6
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)

    def u_statistic(a, b):
        k, l = a @ a.T, b @ b.T  # noqa: E741
        total, count = 0.0, 0
        for i, j, q, r in itertools.permutations(range(n), 4):
            total += float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]))
            count += 1
        return total / count

    expected = u_statistic(x, y) / (u_statistic(x, x) * u_statistic(y, y)) ** 0.5
    assert float(cka(x, y)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("p", [8, 200])
def test_invariances(estimator, p):
    x = torch.randn(50, p, dtype=torch.float64)
    y = torch.randn(50, 30, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(p, p, dtype=torch.float64)).Q
    value = float(cka(x, y, estimator=estimator))
    assert float(cka(y, x, estimator=estimator)) == pytest.approx(value, abs=1e-12)
    assert float(cka(-2.5 * x @ rotation + 7, y, estimator=estimator)) == pytest.approx(value)
    assert float(cka(x, x, estimator=estimator)) == pytest.approx(1.0, abs=1e-12)


def test_unrelated_representations_average_to_zero_unclamped():
    values = torch.tensor(
        [float(cka(torch.randn(20, 50), torch.randn(20, 50))) for _ in range(200)]
    )
    assert values.min() < 0, "slightly negative estimates are shown as they are"
    assert abs(values.mean()) < 4 * values.std() / 200**0.5


@pytest.mark.parametrize("shape", [(8, 3, 2), (6, 20, 30)])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_usable_as_a_loss(estimator, shape):
    n, p, q = shape
    x = torch.randn(n, p, dtype=torch.float64, requires_grad=True)
    y = torch.randn(n, q, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: cka(x, y, estimator=estimator), (x, y))


def test_constant_representation_has_no_cka():
    assert torch.isnan(cka(torch.ones(10, 3), torch.randn(10, 3)))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.randn(5, 2), torch.randn(6, 2), "y: expected the same samples as x, got 6.*5"),
        (
            torch.randn(3, 2),
            torch.randn(3, 2),
            "unbiased estimator needs at least 4 samples, got 3",
        ),
        (torch.full((5, 2), torch.inf), torch.randn(5, 2), "x: expected finite values, got 10"),
        (torch.randn(5, 2), torch.randn(5), "y: expected a matrix"),
    ],
)
def test_bad_input(x, y, message):
    with pytest.raises(ValueError, match=message):
        cka(x, y)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("shape", [(200, 10), (30, 200)], ids=["features", "samples"])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e-5, 1e3, 1e5, 1e18])
def test_scale_does_not_matter_in_float32(shape, estimator, scale):
    """Fourth powers of features are summed, and products of two such sums were."""
    x = torch.randn(shape)
    y = x + torch.randn(shape)
    value = cka(x, y, estimator=estimator)
    torch.testing.assert_close(cka(x * scale, y, estimator=estimator), value, atol=2e-6, rtol=0)
    torch.testing.assert_close(
        cka(x * scale, y * scale, estimator=estimator), value, atol=2e-6, rtol=0
    )


def test_prepared_representations():
    x, y = torch.randn(50, 4), torch.randn(50, 6)
    assert torch.equal(cka(prepare(x), prepare(y)), cka(x, y))
