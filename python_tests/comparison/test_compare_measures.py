"""Whole models by any measure: the grid of their features, layer by layer."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from python_tests.support.in_order import compare
from repsim_fast.similarity import get_measure, grid, jackknife, measure_names


def networks() -> tuple[nn.Module, nn.Module]:
    a = nn.Sequential(nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 5))
    b = nn.Sequential(nn.Linear(6, 7), nn.Tanh())
    return a, b


def activations(a: nn.Module, b: nn.Module, data: torch.Tensor) -> list[torch.Tensor]:
    found = []
    for model in (a, b):
        x = data
        with torch.no_grad():
            for module in model:
                x = module(x)
                found.append(x.clone())
                # The ReLU works in place, but what the layer before returned is compared as it was.
    return found


@pytest.mark.parametrize("name", [n for n in measure_names() if n != "cka"])
def test_every_measure_by_name(name):
    data = torch.randn(90, 6)
    a, b = networks()
    options = {"estimator": "biased"} if name == "cka_rbf" else {}
    result = compare(a, b, data, measure=name, batch_size=32, names=["a", "b"], **options)
    a[1].inplace = False
    layers = activations(a, b, data)
    expected = grid(name, layers[:3], layers[3:], **options)
    found = torch.from_numpy(result.between("a", "b").value)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert result.measure == name
    assert result.n_samples == 90


def test_rounding_of_16_bits_in_means_is_said() -> None:
    a, b = (nn.Sequential(nn.Conv2d(2, 5, 1), nn.Flatten(2)).bfloat16() for _ in "ab")
    data = torch.randn(90, 2, 4, 4).bfloat16()
    said = r"'a' runs in bfloat16, whose rounding is also in .* \(.*; 0\): cca"
    with pytest.warns(UserWarning, match=said):
        compare(a, b, data, measure="cca", layers=["0"], maps="mean", names=["a", "b"])
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        compare(a, b, data, measure="cca", layers=["0"], names=["a", "b"])  # 16 bits themselves
        compare(a, b, data, layers=["0"], maps="mean", names=["a", "b"])  # CKA
    assert not [one for one in others if "whose rounding" in str(one.message)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore:cca. p = ")
def test_rounding_of_16_bits_is_no_direction(dtype: torch.dtype) -> None:
    a, b = (nn.Sequential(nn.Linear(4, width)).to(dtype) for width in (12, 9))
    data = torch.randn(200, 4).to(dtype)
    result = compare(a, b, data, measure="cca", names=["a", "b"], jackknife=0, permutations=0)
    # Both see all of four numbers, and more directions than these there are not.
    assert result.value == pytest.approx(1.0, abs=1e-3)


def test_a_measure_with_options():
    data = torch.randn(60, 6)
    a, b = networks()
    measure = get_measure("svcca", components=3)
    result = compare([a, b], data, measure=measure, batch_size=25, names=["a", "b"])
    assert result.estimator == "components 3, summary mean"
    assert result.between("a", "a").value.diagonal() == pytest.approx(1.0)
    assert "svcca" in repr(result)


@pytest.mark.filterwarnings("ignore:cca. p = ")  # few samples, of which not much is asked
def test_standard_errors_by_jackknife():
    data = torch.randn(60, 6)
    a, b = networks()
    result = compare([a, b], data, measure="cca", jackknife=5, names=["a", "b"])
    a[1].inplace = False
    expected = jackknife("cca", activations(a, b, data), groups=5).standard_error
    found = torch.from_numpy(result.standard_error)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert result.plot("a", "b", standard_error=True).axes
    for measure in ("cka", get_measure("cka")):
        with pytest.raises(ValueError, match="jackknife: expected None for cka"):
            compare(a, b, data, measure=measure, jackknife=5)


def test_distances_are_drawn_up_to_the_largest():
    result = compare([*networks()], torch.randn(50, 6), measure="bures_distance", names=["a", "b"])
    figure = result.plot("a", "b")
    image = next(ax.images[0] for ax in figure.axes if ax.images)
    largest = result.between("a", "b").value.max()
    assert largest > 1
    assert image.get_clim() == pytest.approx((0.0, largest))
    assert any("Bures distance" in ax.get_ylabel() for ax in figure.axes)


def test_unknown_measures_and_passes():
    a, b = networks()
    with pytest.raises(ValueError, match=r"measure: expected one of .* pwcca, .*; got 'nothing'"):
        compare(a, b, torch.randn(20, 6), measure="nothing")
    with pytest.raises(
        ValueError, match="passes: expected 1 for cca, which needs each sample once"
    ):
        compare(a, b, torch.randn(20, 6), measure="cca", passes=2)
    with pytest.raises(ValueError, match="precision: expected None"):
        compare(a, b, torch.randn(20, 6), measure="cca", precision="bfloat16")


def test_layers_that_saturate_are_nan_with_the_reason():
    wide = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 4))
    with pytest.warns(UserWarning, match=r"layers '1' of .*: features: cca needs more samples"):
        result = compare([wide], torch.randn(20, 6), measure="cca", batch_size=10)
    known = ~torch.from_numpy(result.value).isnan()
    assert known.diagonal().tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["procrustes_similarity", "cka_rbf", "mutual_knn"])
def test_layers_whose_squares_leave_float32(name):
    data = torch.randn(60, 6)
    a, b = networks()
    expected = compare(a, b, data, measure=name, names=["a", "b"]).between("a", "b").value
    with torch.no_grad():
        for parameter in a[2].parameters():
            parameter *= 1e-25
    found = compare(a, b, data, measure=name, names=["a", "b"]).between("a", "b").value
    assert found == pytest.approx(expected, abs=2e-5)
