"""Standard errors by themselves, what they are of, and what is said where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.comparison.parts import TWO, Parts, features, samples
from python_tests.support.in_order import compare
from repsim_fast.similarity import grid, jackknife, measure_names

pytestmark = pytest.mark.filterwarnings("ignore:.* independent features of n = ")


@pytest.mark.parametrize("name", measure_names())
def test_every_measure_has_them_by_itself(name: str) -> None:
    x = samples(60)
    result = compare([TWO], x, measure=name, batch_size=6)
    assert result.no_error == ""
    assert np.isfinite(result.standard_error).all()
    assert result.standard_error[0, 1] > 0
    assert result.group_samples == (6,) * 10
    if name != "cka":
        expected = jackknife(name, features(x), groups=10).standard_error
        np.testing.assert_allclose(result.standard_error, expected, atol=1e-5, rtol=1e-3)


def test_few_samples_are_left_out_one_by_one() -> None:
    result = compare([TWO], torch.randn(9, 9), measure="procrustes_similarity")
    assert result.group_samples == (1,) * 9
    assert np.isfinite(result.standard_error).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"measure": "cca", "jackknife": 0}, "none were asked for; jackknife=10 gives them"),
        ({"batch_size": 60}, "all samples were one batch; several, by a smaller batch_size"),
        ({"measure": "cka_rbf", "limit": 4}, "4 samples are too few to leave some out; use more"),
        ({"measure": "mutual_knn", "limit": 11}, "without some of the samples, "),
    ],
)
def test_why_there_are_none_and_what_to_do(options: dict[str, object], reason: str) -> None:
    x = torch.randn(60, 9)[: options.pop("limit", 60)]
    result = compare([TWO], x, **options)
    assert np.isnan(result.standard_error).all()
    assert result.no_error.startswith(reason)
    assert f"no standard errors: {reason}" in repr(result)


def test_not_where_they_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsim_fast.similarity.streaming.samples.AT_MOST", 0.0)
    result = compare([TWO], torch.randn(60, 9), measure="cca")
    assert result.no_error.startswith("those of 10 groups of samples would take about 0 s; jackk")
    asked = compare([TWO], torch.randn(60, 9), measure="cca", jackknife=10)
    assert np.isfinite(asked.standard_error).all()


def test_layers_that_have_none_are_named() -> None:
    model = Parts(slice(0, 4), slice(0, 17))  # 17 independent features of 18 samples saturate
    with pytest.warns(UserWarning, match="standard errors of layers 'layers.1' of model 'Parts'"):
        result = compare([model], torch.randn(20, 17), measure="cca")
    assert np.isfinite(result.value).all()
    assert np.isfinite(result.standard_error[0, 0])
    assert np.isnan(result.standard_error[1]).all()
    assert result.no_error == ""
    (note,) = (note for note in result.notes if "standard errors" in note)
    assert "cca needs more samples than independent features" in note
    assert f"note: {note}" in repr(result)


def test_a_layer_that_varies_in_one_batch_only() -> None:
    x = torch.randn(24, 9)
    x[8:, :5] = 0.0
    with pytest.warns(UserWarning, match=r"'layers.0' of .*: without some of the batches they do"):
        result = compare([TWO], x, batch_size=8)
    assert np.isfinite(result.value).all()
    assert np.isnan(result.standard_error[0]).all()
    assert np.isfinite(result.standard_error[1, 1])


def test_positions_are_left_out_by_batches() -> None:
    images = torch.randn(20, 3, 4, 4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, padding=1))
    options = {"maps": "positions", "measure": "procrustes_similarity"}
    result = compare([model], images, batch_size=4, **options)
    assert result.group_samples == (64,) * 5

    def rows(x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            first = model[0](x)
            second = model[1](first)
        return [m.permute(0, 2, 3, 1).flatten(0, 2) for m in (first, second)]

    for g in range(5):
        kept = torch.cat([images[: 4 * g], images[4 * g + 4 :]])
        expected = grid("procrustes_similarity", rows(kept))
        np.testing.assert_allclose(result.replicates[g], expected, atol=1e-5)
    one = compare([model], images, batch_size=20, **options)
    assert "all samples were one batch and have several rows each" in one.no_error
    with pytest.raises(ValueError, match="at most the 5 batches, of samples with several rows"):
        compare([model], images, batch_size=4, jackknife=6, **options)
