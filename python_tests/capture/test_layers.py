from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import InPlace, seeded
from repsim_fast.capture import ROOT, Capture, layer_kind, list_layers


class FrozenBatchNorm2d(nn.Module):
    pass


class BasicBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)


class WindowAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3, 3)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Conv1d(1, 1, 1), "conv"),
        (nn.ConvTranspose2d(1, 1, 1), "conv"),
        (nn.BatchNorm2d(1), "norm"),
        (nn.LayerNorm(1), "norm"),
        (nn.GroupNorm(1, 1), "norm"),
        (nn.InstanceNorm2d(1), "norm"),
        (FrozenBatchNorm2d(), "norm"),
        (nn.ReLU(), "activation"),
        (nn.GELU(), "activation"),
        (nn.Softmax(1), "activation"),
        (nn.MaxPool2d(2), "pooling"),
        (nn.AdaptiveAvgPool2d(1), "pooling"),
        (nn.Linear(1, 1), "linear"),
        (nn.MultiheadAttention(2, 1), "attention"),
        (nn.LSTM(1, 1), "recurrent"),
        (nn.GRUCell(1, 1), "recurrent"),
        (WindowAttention(), "attention"),
        (BasicBlock(), "block"),
        (nn.TransformerEncoderLayer(4, 2), "block"),
        (Head(), None),
        (nn.Sequential(nn.ReLU()), None),
        (nn.Dropout(), None),
        (nn.Identity(), None),
        (nn.Flatten(), None),
        (nn.Embedding(3, 2), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_kinds(module: nn.Module, kind: str | None) -> None:
    assert layer_kind(module) == kind


class TestSelection:
    model = seeded(InPlace)

    def test_names_in_order_of_the_model(self) -> None:
        assert Capture(self.model, ["fc", "conv1"]).names == ("conv1", "fc")

    def test_one_name(self) -> None:
        assert Capture(self.model, "conv1").names == ("conv1",)

    def test_patterns(self) -> None:
        assert Capture(self.model, ["conv*", "fc"]).names == ("conv1", "conv2", "fc")

    def test_a_name_is_not_a_substring(self) -> None:
        model = nn.ModuleDict({"relu": nn.ReLU(), "relu1": nn.ReLU(), "a": nn.ModuleDict()})
        model["a"]["relu"] = nn.ReLU()
        assert Capture(model, ["relu"]).names == ("relu",)

    def test_a_star_matches_all_but_the_model_itself(self) -> None:
        assert ROOT not in Capture(self.model, "*").names

    def test_predicate(self) -> None:
        names = Capture(self.model, lambda name, m: layer_kind(m) == "conv" and "2" in name).names
        assert names == ("conv2",)

    @pytest.mark.parametrize("layers", [["conv9"], [], lambda name, module: False])
    def test_nothing_matched_shows_what_there_is(self, layers: object) -> None:
        with pytest.raises(ValueError, match=r"(?s)layers: .*matched.*conv1.*Conv2d.*fc.*Linear"):
            Capture(self.model, layers)  # type: ignore[arg-type]

    def test_one_wrong_name_among_right_ones(self) -> None:
        with pytest.raises(ValueError, match=r"'conv_1' matched no layer. Did you mean 'conv1'"):
            Capture(self.model, ["conv1", "conv_1"])

    def test_another_name_of_a_shared_module(self) -> None:
        relu = nn.ReLU()
        model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)
        with pytest.raises(ValueError, match=r"'3' is the module '1' under another name; '1#2' is"):
            Capture(model, "3")

    def test_a_model_without_layers(self) -> None:
        with pytest.raises(ValueError, match="no layer of Identity matched"):
            Capture(nn.Identity())

    def test_wrong_type(self) -> None:
        with pytest.raises(TypeError, match="layers must be names or patterns"):
            Capture(self.model, [1, 2.5])  # type: ignore[list-item]
        for bad in (1.5, True):
            with pytest.raises(TypeError, match="layers must be names or patterns"):
                Capture(self.model, bad)  # type: ignore[arg-type]

    def test_long_tables_are_cut(self) -> None:
        deep = nn.Sequential(*(nn.ReLU() for _ in range(200)))
        with pytest.raises(ValueError, match=r"and 141 more \(list_layers shows all\)"):
            Capture(deep, "typo")


class TestListLayers:
    def test_in_order_of_execution_with_shapes(self, images: Tensor) -> None:
        table = list_layers(seeded(InPlace), images)
        assert [layer.name for layer in table] == [
            "conv1", "bn1", "relu", "conv2", "bn2", "relu#2", "pool", "fc", ROOT,
        ]  # fmt: skip
        assert table[0] == ("conv1", "Conv2d", "conv", (6, 4, 8, 8), None)
        assert table[-1].kind is None

    def test_prints_as_a_table(self) -> None:
        text = str(list_layers(nn.Sequential(nn.Linear(4, 3), nn.Dropout()), torch.zeros(2, 4)))
        assert text.splitlines()[0].split() == ["0", "Linear", "linear", "2", "x", "3"]
        assert text.splitlines()[1].split()[:3] == ["1", "Dropout", "-"]

    def test_inputs_by_name_and_by_position(self) -> None:
        model = nn.Bilinear(2, 3, 4)
        by_position = list_layers(model, (torch.ones(5, 2), torch.ones(5, 3)))
        by_name = list_layers(model, {"input1": torch.ones(5, 2), "input2": torch.ones(5, 3)})
        assert by_position == by_name
        assert by_position[0].shape == (5, 4)
