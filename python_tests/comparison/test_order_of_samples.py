"""An order of the samples changes no estimate in silence, and a comparison leaves no trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from repsim_fast import SimilarityResult, compare
from repsim_fast.similarity import cka


class Features(nn.Module):
    """A layer that returns the features of samples given by their numbers."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features
        self.layer = nn.Hardtanh(-1e9, 1e9)

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(self.features[rows.long()])


@pytest.fixture
def by_class() -> tuple[list[nn.Module], Tensor, Tensor, float]:
    """Two models of ten classes in class order, samples, labels, debiased CKA of all samples."""
    centres, rotation = 2 * torch.randn(10, 64), torch.linalg.qr(torch.randn(64, 64)).Q
    labels = torch.arange(10).repeat_interleave(128)
    x = centres[labels] + torch.randn(1280, 64)
    y = centres[labels] @ rotation + torch.randn(1280, 64)
    return [Features(x), Features(y)], torch.arange(1280.0), labels, float(cka(x, y))


def cell(result: SimilarityResult) -> float:
    return float(result.between(0, 1).value[0, 0])


@pytest.mark.parametrize("kind", ["tensor", "pair", "data set"])
def test_samples_by_class_give_the_value_of_all(kind: str, by_class) -> None:
    models, rows, labels, truth = by_class
    data = {"tensor": rows, "pair": (rows, labels), "data set": TensorDataset(rows, labels)}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare(*models, data)
    assert truth > 0.9
    assert abs(cell(result) - truth) < 0.02
    assert result.n_batches == 10
    assert result.settings["order"] == "random"
    assert result.settings["batch_size"] == 128


@pytest.mark.parametrize("with_labels", [False, True])
def test_sorted_loaders_are_warned_of(with_labels: bool, by_class) -> None:
    models, rows, labels, truth = by_class
    data = TensorDataset(rows, labels) if with_labels else TensorDataset(rows)
    loader = DataLoader(data, 128)
    message = r"data come sorted by their (labels|samples).*less or more alike.*shuffle"
    with pytest.warns(UserWarning, match=message):
        result = compare(*models, loader)
    assert abs(cell(result)) < 0.1 < truth
    assert result.settings["order"] == "as given"


def test_an_order_on_request_is_warned_of_too(by_class) -> None:
    models, rows, labels, _ = by_class
    with pytest.warns(UserWarning, match="data come sorted by their labels"):
        compare(*models, (rows, labels), shuffle=False)


def test_measures_of_all_samples_do_not_care(by_class) -> None:
    models, rows, labels, _ = by_class
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sorted_, random = (
            compare(*models, (rows, labels), measure="procrustes_similarity", shuffle=shuffle)
            for shuffle in (False, None)
        )
    np.testing.assert_allclose(sorted_.value, random.value, atol=1e-5)


def test_samples_drawn_with_replacement_are_warned_of(by_class) -> None:
    models, rows, _, _ = by_class
    loader = DataLoader(rows, 128, sampler=WeightedRandomSampler(torch.ones(1280), 1280))
    with pytest.warns(UserWarning, match="draws with replacement.*standard errors are too small"):
        result = compare(*models, loader)
    assert any("replacement" in note for note in result.notes)
    with pytest.raises(ValueError, match=r"data: expected each sample once, which cca needs"):
        compare(*models, loader, measure="cca")
    without = WeightedRandomSampler(torch.ones(1280), 1280, replacement=False)
    assert compare(*models, DataLoader(rows, 128, sampler=without)).notes == ()


def test_the_seed_decides(by_class) -> None:
    models, rows, _, _ = by_class
    one, again, other = (compare(*models, rows, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.value, again.value)
    assert (one.value != other.value).any()


class TestPairedData:
    def test_each_model_sees_its_own(self) -> None:
        x, y = torch.randn(200, 5), torch.randn(200, 7)
        a, b = nn.Sequential(nn.Linear(5, 4)), nn.Sequential(nn.Linear(7, 3))
        result = compare({"a": a, "b": b}, {"a": x, "b": y}, batch_size=200)
        with torch.no_grad():
            expected = float(cka(a(x), b(y)))
        assert abs(float(result.between("a", "b").value[0, 0]) - expected) < 1e-6

    def test_one_model_on_two_streams_is_run_twice(self) -> None:
        model, x = nn.Sequential(nn.Linear(5, 4)), torch.randn(200, 5)
        data = {"clean": x, "noisy": x + torch.randn(200, 5)}
        result = compare({"clean": model, "noisy": model}, data)
        assert float(result.between("clean", "noisy").value[0, 0]) < 0.9

    def test_transforms_take_their_models_data(self) -> None:
        model, x = nn.Sequential(nn.Linear(5, 4)), torch.randn(64, 5)
        result = compare(
            {"a": model, "b": model},
            {"a": x, "b": -x},
            inputs={"b": lambda batch, y: -batch},
        )
        assert abs(float(result.between("a", "b").value[0, 0]) - 1) < 1e-5

    def test_zipped_loaders_are_refused(self) -> None:
        model = nn.Sequential(nn.Linear(5, 4))
        loaders = [[torch.randn(8, 5) for _ in range(3)] for _ in range(2)]
        with pytest.raises(ValueError, match=r"second stream of inputs.*data="):
            compare(model, model, list(zip(*loaders, strict=True)))


class AlwaysTraining(nn.Module):
    """A norm that takes no notice of modes, and dropout by function."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.norm.running_mean, self.norm.running_var
        x = nn.functional.batch_norm(x, mean, variance, training=True)
        return self.last(nn.functional.dropout(x, 0.5, training=True))


def test_no_trace_is_left() -> None:
    model, x = AlwaysTraining(), torch.randn(64, 5)
    loader = DataLoader(TensorDataset(x), 16, shuffle=True)  # draws a base seed
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    results = [compare([model], loader, seed=3) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    np.testing.assert_array_equal(results[0].value, results[1].value)


def test_no_trace_is_left_after_an_exception() -> None:
    model = AlwaysTraining()

    def broken() -> Iterator[Tensor]:
        yield torch.randn(16, 5)
        raise KeyError("data")

    before = model.norm.running_mean.clone()
    random = torch.get_rng_state()
    with pytest.raises(KeyError):
        compare([model], broken())
    assert torch.equal(model.norm.running_mean, before)
    assert torch.equal(torch.get_rng_state(), random)
