"""Several measures in one pass are what each of them is alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from python_tests.support.ranks import launch
from repsim_fast import compare, record
from repsim_fast.similarity import get_measure

X = torch.randn(60, 6)


class Counted(nn.Sequential):
    """Counts its forward passes."""

    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return super().forward(x)


@pytest.fixture
def nets() -> dict[str, nn.Module]:
    return {
        name: Counted(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double() for name in ("a", "b")
    }


@pytest.mark.parametrize(
    "measures",
    [
        ["cka", "procrustes_similarity"],
        ["CCA", "cka", "rsa"],
        ("cka",),
        ["Procrustes-Similarity", "CKA RBF"],
        [get_measure("svcca", components=2), "svcca", "cka_rbf"],
    ],
)
def test_each_is_what_it_is_alone(nets: dict[str, nn.Module], measures: Any) -> None:
    options: dict[str, Any] = {"batch_size": 15, "seed": 3}
    before = nets["a"].passes
    compare(nets, X.double(), measure=measures[0], **options)
    alone = nets["a"].passes - before
    found = compare(nets, X.double(), measure=measures, **options)
    assert nets["a"].passes - before == 2 * alone
    assert len(found) == len(measures)
    for measure, result in zip(measures, found.values(), strict=True):
        expected = compare(nets, X.double(), measure=measure, **options)
        assert result.measure == expected.measure
        assert result.estimator == expected.estimator
        assert result.layers == expected.layers
        np.testing.assert_allclose(result.value, expected.value, atol=1e-12)
        np.testing.assert_allclose(result.standard_error, expected.standard_error, atol=1e-10)
        assert result.chance_note == expected.chance_note
        assert result.n_samples == 60


def test_names(nets: dict[str, nn.Module]) -> None:
    measures = [get_measure("svcca", components=2), "svcca", "cka"]
    assert list(compare(nets, X.double(), measure=measures)) == ["svcca", "svcca 2", "cka"]


def test_options_are_for_those_that_have_them(nets: dict[str, nn.Module]) -> None:
    options: dict[str, Any] = {"jackknife": 4, "permutations": 3, "estimator": "biased"}
    found = compare(nets, X.double(), measure=["cka", "rsa"], **options)
    assert found["cka"].estimator == "biased"
    assert len(found["rsa"].group_samples) == 4
    assert "3 random orders" in found["rsa"].chance_note
    with pytest.raises(ValueError, match="estimator: none of the measures has one"):
        compare(nets, X.double(), measure=["cca", "rsa"], estimator="biased")
    with pytest.raises(ValueError, match="measure: expected at least one, got none"):
        compare(nets, X.double(), measure=[])
    with pytest.raises(ValueError, match="passes: expected 1 for cka and rsa"):
        compare(nets, X.double(), measure=["cka", "rsa"], passes=2)
    with pytest.raises(ValueError, match=r"got 'procrustes'; did you mean '.*procrustes"):
        compare(nets, X.double(), measure="procrustes")


def test_what_was_done_before_an_error_is_kept(nets: dict[str, nn.Module]) -> None:
    batches = [X[:30].double(), torch.full((30, 6), float("nan"), dtype=torch.float64)]
    with pytest.raises(ValueError, match="NaN") as caught:
        compare(nets, batches, measure=["rsa", "cka"])
    kept = caught.value.partial_result
    assert {name: result.n_samples for name, result in kept.items()} == {"rsa": 30, "cka": 30}


def test_recordings(nets: dict[str, nn.Module], tmp_path: Path) -> None:
    kept = {
        name: record(net, X.double(), tmp_path / name, keep="features", name=name)
        for name, net in nets.items()
    }
    expected = compare(nets, X.double(), measure=["cka", "rsa"])
    alone = compare(kept, measure=["cka", "rsa"])
    mixed = compare({"a": nets["a"], "b": kept["b"]}, X.double(), measure=["cka", "rsa"])
    for name, result in expected.items():
        np.testing.assert_allclose(alone[name].value, result.value, atol=1e-10)
        np.testing.assert_allclose(mixed[name].value, result.value, atol=1e-10)


_SHARED = """
from python_tests.support.shared_comparisons import *
options = {"measure": ["cka", "rsa", "procrustes_similarity"], "batch_size": 8, "max_batches": 7}
found = compare(network(0), images(90), process_group=dist.group.WORLD, **options)
alone = compare(network(0), images(90), **options)
for name, result in alone.items():
    assert result.n_samples == found[name].n_samples == 56
    assert abs(result.value - found[name].value).max() < 1e-12, name
"""


def test_processes_share_them(tmp_path: Path) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo back end")
    for code, output in launch(_SHARED, 2, tmp_path):
        assert code == 0, output
