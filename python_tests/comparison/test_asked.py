"""What is asked of models and recordings together acts on all of them, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from python_tests.comparison.test_recordings import SETTINGS, same
from repsim_fast import Recording, SimilarityResult, compare, compare_zoo, record

Compare = Callable[..., SimilarityResult]


def cubed(x: Tensor, y: Tensor | None) -> Tensor:
    return x**3


@pytest.fixture
def recorded(net_a: nn.Module, images: Tensor, tmp_path: Path) -> Recording:
    return record(net_a, images, tmp_path / "a", **SETTINGS)


@pytest.fixture
def cubes(net_a: nn.Module, images: Tensor, tmp_path: Path) -> Recording:
    return record(net_a, images, tmp_path / "cubes", name="a", inputs=cubed, **SETTINGS)


both = pytest.mark.parametrize("comparing", [compare, compare_zoo])


@both
class TestInputs:
    def test_of_all_models_are_those_of_recordings(
        self,
        recorded: Recording,
        cubes: Recording,
        net_a: nn.Module,
        net_b: nn.Module,
        images: Tensor,
        comparing: Compare,
    ) -> None:
        options: dict[str, Any] = {**SETTINGS, "inputs": cubed}
        refusal = r"inputs: expected None, .* 'a' .* record it with inputs=.* inputs=\{'b': ...\}"
        with pytest.raises(ValueError, match=refusal):
            comparing({"a": recorded, "b": net_b}, images, **options)
        want = compare({"a": net_a, "b": net_b}, images, **options)
        same(want, comparing({"a": cubes, "b": net_b}, images, **options))

    def test_of_each(
        self,
        recorded: Recording,
        cubes: Recording,
        net_a: nn.Module,
        net_b: nn.Module,
        images: Tensor,
        comparing: Compare,
    ) -> None:
        models, zoo = {"a": net_a, "b": net_b}, {"a": recorded, "b": net_b}
        want = compare(models, images, inputs=[None, cubed], **SETTINGS)
        for inputs in ([None, cubed], {"b": cubed}, {"a": None, "b": cubed}):
            same(want, comparing(zoo, images, inputs=inputs, **SETTINGS))
        for wrong in ([cubed, cubed], {"a": cubed}):
            with pytest.raises(ValueError, match="inputs: expected None, with which recording 'a'"):
                comparing(zoo, images, inputs=wrong, **SETTINGS)
        with pytest.raises(ValueError, match=r"inputs: expected '.*cubed.*', .* got None for it"):
            comparing({**zoo, "a": cubes}, images, inputs=[None, cubed], **SETTINGS)
        with pytest.raises(ValueError, match=r"inputs must be .* one for each of 2, got 1"):
            comparing(zoo, images, inputs=[cubed], **SETTINGS)

    def test_that_a_recording_alone_had_are_noted(
        self, cubes: Recording, net_b: nn.Module, images: Tensor, comparing: Compare
    ) -> None:
        zoo = {"a": cubes, "b": net_b}
        with pytest.warns(UserWarning, match="'a' was made with inputs='.*cubed.*', while"):
            result = comparing(zoo, images, **SETTINGS)
        assert sum("was made with inputs=" in note for note in result.notes) == 1
        assert not comparing(zoo, images, inputs={"b": None}, **SETTINGS).notes


@both
def test_layers(
    recorded: Recording, net_b: nn.Module, images: Tensor, tmp_path: Path, comparing: Compare
) -> None:
    zoo = {"a": recorded, "b": net_b}
    for layers in ("0", [None, "0"], {"b": "0"}):
        result = comparing(zoo, images, layers=layers, **SETTINGS)
        assert result.layers == (recorded.layers, ("0",))
    with pytest.raises(ValueError, match="layers: expected None, with which recording 'a'"):
        comparing(zoo, images, layers={"a": "0"}, **SETTINGS)
    with pytest.raises(ValueError, match="layers: no model is named 'c'"):
        comparing(zoo, images, layers={"c": "0"}, **SETTINGS)


@both
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "0"}, "layers: expected the default"),
        ({"layers": {"a": "0"}}, "layers: expected the default"),
        ({"inputs": cubed}, "inputs: expected the default"),
        ({"maps": "pool"}, "maps: .* got 'pool' where 'a' has 'flatten'"),
        ({"batch_size": 7}, "batch_size: .* got 7 where 'a' has 10"),
        ({"seed": 5}, "seed: .* got 5 where 'a' has 3"),
        ({"passes": 2}, "passes: .* got 2 where 'a' has 1"),
        ({"shuffle": False}, "shuffle: expected the default"),
        ({"autocast": torch.bfloat16}, "autocast: .* where 'a' has None"),
        ({"precision": "bfloat16"}, "precision: expected 'float32'"),
        ({"ids": range(40)}, "ids: expected None with recordings alone and no data"),
    ],
)
def test_recordings_alone_refuse_what_nothing_would_follow(
    recorded: Recording, comparing: Compare, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        comparing({"a": recorded, "b": recorded}, **options)


def test_a_zoo_of_recordings_alone_is_their_comparison(
    recorded: Recording, images: Tensor, tmp_path: Path
) -> None:
    zoo = {"a": recorded, "b": recorded.path, "c": tmp_path / "nowhere"}
    with pytest.warns(UserWarning, match="'c' failed and is left out"):
        got = compare_zoo(zoo, images, **SETTINGS)
    assert got.models == ("a", "b")
    assert (got.value == compare({"a": recorded, "b": recorded}).value).all()
    with pytest.raises(ValueError, match="other samples or another order"):
        compare_zoo({"a": recorded}, images + 0.01, **SETTINGS)
    for unused in ({"stored": "float16"}, {"every": 3}):
        with pytest.raises(ValueError, match="expected none with recordings alone"):
            compare_zoo({"a": recorded}, **unused)


def test_a_zoo_takes_the_estimator_of_its_recordings(
    net_a: nn.Module, net_b: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    biased = record(net_a, images, tmp_path / "a", estimator="biased", **SETTINGS)
    want = compare({"a": net_a, "b": net_b}, images, estimator="biased", **SETTINGS)
    same(want, compare_zoo({"a": biased, "b": net_b}, images, **SETTINGS))
