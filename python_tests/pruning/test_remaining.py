"""Counts of what is left, against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from repsim_fast import pruning


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 10)
    )


def test_counts_of_a_small_network() -> None:
    model = network()
    pruning.prune(model, 0.75)
    found = pruning.report(model, torch.rand(3, 2, 8, 8))
    conv, linear = found.layers
    assert (conv.name, conv.weights, conv.kept, conv.positions) == ("0", 72, 18, 16)
    assert (linear.name, linear.weights, linear.kept, linear.positions) == ("3", 640, 160, 1)
    assert (conv.multiply_adds, conv.dense_multiply_adds) == (18 * 16, 72 * 16)
    assert (found.multiply_adds, found.dense_multiply_adds) == (18 * 16 + 160, 72 * 16 + 640)
    assert found.sparsity == linear.sparsity == 0.75
    # the kept ones and a bit each; biases 4 + 10, norm 4 * 4 in float32 and its counter in int64
    assert (conv.compressed_bytes, linear.compressed_bytes) == (18 * 4 + 9, 160 * 4 + 80)
    assert found.other_bytes == (14 + 16) * 4 + 8
    assert found.dense_bytes == sum(x.nbytes for x in network().state_dict().values())
    assert found.compressed_bytes == 81 + 720 + 128


def test_the_smallest_form_counts() -> None:
    model = nn.Linear(100, 100, bias=False)
    assert pruning.report(model).compressed_bytes == 40_000
    pruning.prune(model, 0.99)
    assert pruning.report(model).compressed_bytes == 100 * 8


def test_an_applied_model_has_the_same_report_and_none_is_changed() -> None:
    model, dense = network(), network()
    pruning.prune(model, 0.5)
    dense.load_state_dict(pruning.apply(model))
    images = torch.rand(2, 2, 8, 8)
    model.train()
    statistics = model[1].running_mean.clone()
    assert pruning.report(model, images) == pruning.report(dense, images)
    assert model.training
    assert torch.equal(model[1].running_mean, statistics)
    assert not model[0]._forward_hooks


def test_without_images_nothing_is_said_of_multiply_adds() -> None:
    found = pruning.report(network())
    assert found.multiply_adds is None
    assert found.layers[0].dense_multiply_adds is None


def test_a_layer_called_twice_counts_twice() -> None:
    layer = nn.Linear(4, 4, bias=False)
    found = pruning.report(nn.Sequential(layer, nn.ReLU(), layer), torch.rand(1, 4))
    assert found.multiply_adds == 32


def test_a_module_of_two_names_is_stored_once() -> None:
    layer = nn.Linear(40, 40)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.BatchNorm1d(40))
    pruning.prune(model, 0.95)
    found = pruning.report(model)
    others = (40 + 4 * 40) * 4 + 8  # a bias, a norm and its counter
    assert (found.weights, found.other_bytes, found.dense_bytes) == (1600, others, 6400 + others)
    assert found.compressed_bytes == 80 * 4 + 200 + others


def test_a_weight_of_several_layers_is_stored_once() -> None:
    model = nn.Sequential(
        nn.Embedding(5, 6), nn.Linear(6, 6, False), nn.Linear(6, 6), nn.Linear(6, 5)
    )
    model[2].weight, model[3].weight = model[1].weight, model[0].weight
    found = pruning.report(model, torch.tensor([[1, 2]]))
    assert [layer.shares for layer in found.layers] == [None, "1", None]
    assert (found.weights, found.sparsity, found.other_bytes) == (36 + 30, 0, (6 + 5) * 4)
    assert found.dense_bytes == found.compressed_bytes == (36 + 30 + 11) * 4
    assert found.multiply_adds == 2 * (36 + 36 + 30)  # computed with by each


def test_the_output_projection_of_attention_counts() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(6, 2, 10, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(x)

    found = pruning.report(Attending(), torch.rand(3, 5, 6))
    assert {line.name.rpartition(".")[2]: line.positions for line in found.layers} == {
        "out_proj": 5,
        "linear1": 5,
        "linear2": 5,
    }


class Direct(nn.Module):
    """Weights used without a call of their layers, as torchvision's Swin does."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.never = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, self.once.weight, self.once.bias)
        return x @ self.twice.weight.mT + torch.einsum("ntf,cf->ntc", x, self.twice.weight)


@pytest.mark.parametrize("pruned", [False, True])
def test_weights_used_without_their_layer_count(pruned: bool) -> None:
    model = Direct()
    if pruned:
        pruning.prune(model, 0.5)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = pruning.report(model, torch.rand(3, 5, 6))
        assert [layer.positions for layer in found.layers] == [5, 10, 0]
        assert found.dense_multiply_adds == 5 * 24 + 10 * 12
        assert found.multiply_adds == (120 if pruned else 240)


@pytest.mark.parametrize(
    ("layer", "x", "places"),
    [
        (nn.ConvTranspose1d(2, 4, 3, stride=2), torch.rand(3, 2, 5), 5),
        (nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), torch.rand(2, 4, 5, 7), 35),
        (nn.ConvTranspose3d(2, 4, 2, output_padding=1, stride=2), torch.rand(1, 2, 2, 3, 4), 24),
    ],
    ids=type,
)
def test_a_transposed_convolution_applies_its_weight_at_places_of_its_input(
    layer: nn.Module, x: torch.Tensor, places: int
) -> None:
    pruning.prune(layer, 0.5)
    (found,) = pruning.report(layer, x).layers
    assert (found.sparsity, found.positions) == (0.5, places)
    with FlopCounterMode(display=False) as counted:
        layer(x)
    assert found.dense_multiply_adds == counted.get_total_flops() / 2 / len(x)


def test_a_layer_without_a_weight_yet_is_an_error() -> None:
    with pytest.raises(ValueError, match="'1' has no weight yet: run the model once"):
        pruning.report(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))


def test_weights_without_values_are_an_error() -> None:
    for use in (pruning.report, lambda model: pruning.prune(model, 0.5)):
        with pytest.raises(ValueError, match="'1' is on the meta device, without values"):
            use(nn.Sequential(nn.Flatten(), nn.Linear(4, 3, device="meta")))


@pytest.mark.parametrize("images", [(torch.rand(1, 4),), [[0.0] * 4], "digits"])
def test_images_are_a_tensor(images: Any) -> None:
    with pytest.raises(TypeError, match="images: expected a tensor, got"):
        pruning.report(nn.Linear(4, 3), images)


def test_nothing_to_report_is_an_error() -> None:
    with pytest.raises(ValueError, match="linear or convolutional layer, got none"):
        pruning.report(nn.ReLU())
    with pytest.raises(ValueError, match="images: expected one at least"):
        pruning.report(network(), torch.rand(0, 2, 8, 8))
