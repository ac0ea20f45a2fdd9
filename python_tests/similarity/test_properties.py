"""What the metadata of measures claims: ranges, directions, invariances, symmetry, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from python_tests.support import definitions
from repsim_fast import similarity
from repsim_fast.similarity import get_measure, grid, measure_info, measure_names, measures_table

NAMES = definitions.of_few_features()
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "measures.md"


def pair(n: int = 50, p: int = 6, q: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, p, dtype=torch.float64) + 1
    return x, (x @ torch.randn(p, q, dtype=torch.float64) + torch.randn(n, q).double()) / 3 + 0.5


def orthogonal(p: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(p, p, dtype=torch.float64))[0]


CHANGES = {
    "permutation": lambda x: x[:, torch.randperm(x.shape[1])],
    "rotation": lambda x: x @ orthogonal(x.shape[1]),
    "scale": lambda x: 3.7 * x,
    "translation": lambda x: x + 2 * torch.randn(x.shape[1], dtype=x.dtype),
    "linear": lambda x: x @ torch.randn(x.shape[1], x.shape[1], dtype=x.dtype),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_invariances_are_those_claimed(name, change):
    """Claimed ones hold on each side; one that is not claimed changes the value on some side."""
    x, y = pair()
    options = {"ridge": 0.1} if name == "gulp_distance" else {}
    if name == "shape_distance":
        options = {"alpha": 0.5}
    measure = get_measure(name, **options)
    value = float(measure(x, y))
    of_x, of_y = float(measure(CHANGES[change](x), y)), float(measure(x, CHANGES[change](y)))
    if change in measure.info.invariant_to:
        assert of_x == pytest.approx(value, rel=1e-8)
        assert of_y == pytest.approx(value, rel=1e-8)
    else:
        assert max(abs(of_x - value), abs(of_y - value)) > 1e-6 * max(abs(value), 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_value_with_itself_range_and_symmetry(name):
    info = measure_info(name)
    x, y = pair()
    measure = get_measure(name)
    if info.of_itself is not None:
        assert float(measure(x, x)) == pytest.approx(info.of_itself, abs=1e-6)
    unrelated = torch.randn(50, 8, dtype=torch.float64)
    for other in (y, unrelated, -x, x.abs().log1p()):
        low = -0.1 if getattr(measure, "estimator", "") == "unbiased" else info.low
        assert low - 1e-9 <= float(measure(x, other)) <= info.high + 1e-9
    if info.symmetric:
        assert float(measure(x, y)) == pytest.approx(float(measure(y, x)), rel=1e-9)
    else:
        assert abs(float(measure(x, y)) - float(measure(y, x))) > 1e-6
    assert name.endswith(("distance", "difference")) == (info.kind == "distance")


@pytest.mark.parametrize("name", [n for n in NAMES if measure_info(n).of_itself == 0.0])
def test_float32_distance_from_itself(name):
    """Wider than samples, factors of Grams stand for the features and are rounded."""
    x = torch.randn(40, 70) + 0.3
    options = {"ridge": 1e-2} if name == "gulp_distance" else {}
    assert float(get_measure(name, **options)(x, x.clone())) < 1e-5 * float(x.norm())


@pytest.mark.parametrize("name", [n for n in NAMES if measure_info(n).differentiable != "no"])
def test_gradients(name):
    """Analytic gradients of every measure that claims them, by finite differences in a random
    direction, which a wrong entry of the gradient changes wherever it is."""
    x = torch.randn(14, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(14, 4, dtype=torch.float64, requires_grad=True)
    options = {"comparison": "pearson"} if name == "rsa" else {}
    if name == "svcca":
        options = {"components": 2}
    measure = get_measure(name, **options)
    assert torch.autograd.gradcheck(
        lambda a, b: measure(a, b), (x, y), atol=1e-5, rtol=1e-4, fast_mode=True
    )


# The shape of a cloud of points says nothing of whether its points are the same.
@pytest.mark.parametrize("name", [n for n in NAMES if n != "intrinsic_multiscale_distance"])
def test_more_noise_means_less_alike(name):
    """The direction: a copy with much noise is less alike than one with little."""
    x = torch.randn(100, 5, dtype=torch.float64) + 0.5
    little, much = ((1 + s) * (x + s * torch.randn(100, 5).double()) for s in (0.05, 3.0))
    values = [float(get_measure(name)(x, other)) for other in (little, much)]
    assert (values[0] > values[1]) == (measure_info(name).kind == "similarity")


def test_triangle_inequality_of_metrics():
    layers = [torch.randn(40, 5, dtype=torch.float64) for _ in range(6)]
    layers += [layers[0] + 0.1 * layers[1], layers[0] @ orthogonal(5)]
    for name in NAMES:
        if measure_info(name).metric:
            d = grid(name, layers)
            assert bool((d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-7).all()), name


def test_table_in_the_documentation_is_current():
    """`python docs/update_measures.py` brings it up to date."""
    text = DOCUMENT.read_text()
    assert measures_table() in text, (
        "docs/measures.md is out of date; run python docs/update_measures.py"
    )
    for name in measure_names():
        assert f"`{name}`" in text
        doc = getattr(similarity, name).__doc__
        assert "Example:" in doc
        assert "References:" in doc
