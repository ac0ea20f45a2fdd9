"""The indices that judge blocks, on maps whose structure is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.lab.comparisons import Comparison
from experiments.robust_representations.questions import components
from experiments.robust_representations.questions.common import made_index, stream, structure
from repsim_fast import models
from repsim_fast.analysis.components import first_component_share
from repsim_fast.analysis.grids import stages_by_name
from repsim_fast.capture import Capture

PUBLISHED = json.loads(
    (Path(__file__).parents[2] / "analysis" / "published_stream.json").read_text()
)


def layers_of(name):
    network = models.build(name, num_classes=10, seed=0)
    return tuple(n for n, m in network.named_modules() if n and not list(m.children()))


def compared(layers, makers, grid):
    return Comparison(("net",), (layers,), grid, np.stack([grid] * 3), (tuple(makers),))


def test_the_stream_is_what_blocks_read_and_the_last_output():
    layers = layers_of("wrn-28-1")
    own = [layers[i] for i in stream(layers)]
    assert len(own) == 13
    assert own[0] == "stage1.0.relu1"
    assert own[-1] == "relu"


@pytest.mark.parametrize(("kind", "index"), [("standard", 0.135), ("robust", -0.049)])
def test_the_published_maps_are_told_apart_by_the_stream_and_not_by_names(kind, index):
    """The known case: every layer shows what the stream's layer at or before it shows."""
    layers = layers_of("wrn-28-1")
    at = stream(layers)
    nearest = np.clip(np.searchsorted(at, np.arange(len(layers)), side="right") - 1, 0, 12)
    grid = np.array(PUBLISHED[kind])[np.ix_(nearest, nearest)]
    found = compared(layers, [PUBLISHED["made_by"][i] for i in nearest], grid)
    assert stages_by_name(layers)[at[1]] == "stage1"
    of_stream = made_index(found, "net", of_stream=True)
    assert of_stream(grid) == pytest.approx(index, abs=0.0015)
    row = structure(found, "net")
    assert row["block index, residual stream"].value == of_stream(grid)
    # By the module's name even the standard network seems to have few blocks or none.
    assert row["block index"].value < row["block index, making stage"].value


def test_the_first_component_is_that_of_the_layer():
    network = models.build("wrn-10-1", num_classes=10, in_channels=1, seed=0).eval()
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    lab = SimpleNamespace(
        model=lambda view: network,
        images=lambda: (images, None),
        preset=SimpleNamespace(device="cpu"),
    )
    layers, _, features = components._features(lab, None)
    raw = {}
    with torch.no_grad(), Capture(network, layers, on_activation=raw.__setitem__):
        network(images)
    for layer, found in zip(layers, features, strict=True):
        share = first_component_share(raw[layer].flatten(1).double())
        assert first_component_share(found) == pytest.approx(share, rel=1e-3)
