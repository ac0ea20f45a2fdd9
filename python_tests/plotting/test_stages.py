"""Stages by names of layers, as libraries name them."""

from __future__ import annotations

from itertools import groupby

import pytest

from repsim_fast.plotting import stages_by_name


def runs(*names: str) -> list[tuple[str, int]] | None:
    stages = stages_by_name(names)
    return stages and [(label, len(list(run))) for label, run in groupby(stages)]


def test_a_residual_network() -> None:
    names = ["conv1", "bn1"]
    names += [f"layer{s}.{b}.{kind}" for s in (1, 2) for b in (0, 1) for kind in ("conv", "bn")]
    assert runs(*names, "avgpool", "fc") == [("stem", 2), ("layer1", 4), ("layer2", 4), ("head", 2)]


def test_what_holds_most_layers_is_parted() -> None:
    blocks = [f"encoder.layers.{b}.{part}" for b in range(3) for part in ("ln", "mlp")]
    found = runs("conv_proj", *blocks, "encoder.ln", "head")
    assert found == [("stem", 1), ("layers.0", 2), ("layers.1", 2), ("layers.2", 2), ("head", 2)]


@pytest.mark.parametrize("names", [[], ["fc"], ["0", "1", "2"], ["a.0", "a.1", "a.2"]])
def test_names_without_stages(names: list[str]) -> None:
    assert stages_by_name(names) is None


def test_a_layer_between_stages_is_of_the_one_before() -> None:
    assert runs("a.0", "a.1", "pool", "b.0", "b.1") == [("a", 3), ("b", 2)]
