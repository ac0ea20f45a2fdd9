"""Channels are found where the layer has them that returned a tensor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import seeded
from repsim_fast.capture import ROOT, Capture

FIRST, LAST = "first", "last"


def pooled(model: nn.Module, x: Tensor, **options: object) -> dict[str, Tensor]:
    """Pooled activations; a warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad(), Capture(model, maps="pool", **options) as capture:  # type: ignore[arg-type]
            model(x)
    return capture.activations


def raw(model: nn.Module, x: Tensor, **options: object) -> dict[str, Tensor]:
    with torch.no_grad(), Capture(model, maps=None, **options) as capture:  # type: ignore[arg-type]
        model(x)
    return capture.activations


def mean_over_positions(x: Tensor, channels: str) -> Tensor:
    if x.ndim <= 2:
        return x
    axes = [axis for axis in range(1, x.ndim) if axis != (1 if channels == FIRST else x.ndim - 1)]
    return x.mean(axes)


def true_channels(modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    """What the code of torchvision's layers says of networks of theirs, by name of the layer.

    Swin: all that comes after the first permutation has the channels last. ConvNeXt: inside a
    block, between its permutations.
    """
    is_swin = any(type(m).__name__ == "SwinTransformer" for m in modules.values())
    for name in modules:
        path = name.split(".")
        if is_swin:
            is_first = name == "features.0.0" or path[0] in ("permute", "avgpool")
        else:
            is_first = "block" not in path or path[-1] not in ("1", "2", "3", "4", "5")
        yield name, FIRST if is_first else LAST


@pytest.fixture(scope="module")
def vision():  # type: ignore[no-untyped-def]
    return pytest.importorskip("torchvision", reason="torchvision is not installed").models


class TestVision:
    def networks(self, vision):  # type: ignore[no-untyped-def]
        swin = partial(
            vision.SwinTransformer, patch_size=[4, 4], num_heads=[2, 2], window_size=[2, 2],
            depths=[2, 2], stochastic_depth_prob=0.0, num_classes=5,
        )  # fmt: skip
        setting = vision.convnext.CNBlockConfig
        return {
            "swin_t": (vision.swin_t, 64),
            "convnext_tiny": (vision.convnext_tiny, 64),
            # As many channels as rows and columns: sizes tell nothing.
            "small swin": (partial(swin, embed_dim=8), 32),
            "small convnext": (
                partial(vision.ConvNeXt, [setting(8, 16, 2), setting(16, None, 2)], num_classes=5),
                32,
            ),
        }

    @pytest.mark.parametrize("name", ["swin_t", "convnext_tiny", "small swin", "small convnext"])
    def test_every_layer_of_networks_with_both(self, vision, name: str) -> None:  # type: ignore[no-untyped-def]
        build, size = self.networks(vision)[name]
        model = seeded(build).eval()
        x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        modules = dict(model.named_modules())
        truth = dict(true_channels(modules))
        layers = [n for n, m in modules.items() if n and type(m).__name__ not in ("Sequential",)]
        got, activations = pooled(model, x, layers=layers), raw(model, x, layers=layers)
        assert len(got) > 30
        assert {truth[n.partition("#")[0]] for n, a in activations.items() if a.ndim == 4} == {
            FIRST,
            LAST,
        }
        for call, activation in activations.items():
            expected = mean_over_positions(activation, truth[call.partition("#")[0]])
            torch.testing.assert_close(got[call], expected, msg=call)

    @pytest.mark.parametrize(
        "name", ["resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
    )
    def test_every_layer_of_channels_first_networks(self, vision, name: str) -> None:  # type: ignore[no-untyped-def]
        options = {"init_weights": False} if name == "googlenet" else {}
        model = seeded(partial(vision.get_model, name, **options)).eval()
        x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        layers = [n for n, m in model.named_modules() if n]
        got, activations = pooled(model, x, layers=layers), raw(model, x, layers=layers)
        for call, activation in activations.items():
            torch.testing.assert_close(got[call], mean_over_positions(activation, FIRST), msg=call)


class Concatenating(nn.Module):
    """Ends with more channels than any layer inside, and with as many rows as one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return torch.cat([x, a, self.b(a)], 1)


class LayerNorm2d(nn.LayerNorm):
    """Takes and gives channels first, as torchvision's and timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Functions(nn.Module):
    """Layers that pass on what functions made of the outputs of other layers."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.norm = LayerNorm2d(6)
        self.activation = nn.GELU()
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)) * 2
        return self.activation(x.permute(0, 2, 3, 1) * 1 if self.last else x + 1)


class Own(nn.Module):
    """A layer of one's own with weights, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1) * self.weight


class TestSmallNetworks:
    maps = torch.rand(2, 3, 8, 5, generator=torch.Generator().manual_seed(0))

    def test_a_concatenation_with_as_many_rows_as_channels(self) -> None:
        model = nn.Sequential(seeded(Concatenating), nn.Identity())
        got = pooled(model, self.maps.mT, layers=["0"])["0"]
        torch.testing.assert_close(got, model(self.maps.mT).mean((2, 3)).detach())

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("last", [False, True])
    def test_after_functions(self, last: bool, memory_format: torch.memory_format) -> None:
        model = seeded(partial(Functions, last))
        x = self.maps.contiguous(memory_format=memory_format)
        got, activations = pooled(model, x, layers="*"), raw(model, x, layers="*")
        for name, channels in (("conv", FIRST), ("norm", FIRST), ("activation", LAST)):
            truth = channels if last else FIRST
            torch.testing.assert_close(got[name], mean_over_positions(activations[name], truth))

    def test_a_permutation_when_sizes_tell_nothing(self) -> None:
        class Permute(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.permute(0, 2, 3, 1)

        model = nn.Sequential(nn.Conv2d(3, 4, 1), Permute(), nn.ReLU())
        x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        got, activations = pooled(model, x, layers="*"), raw(model, x, layers="*")
        for name, channels in (("0", FIRST), ("1", LAST), ("2", LAST)):
            torch.testing.assert_close(got[name], mean_over_positions(activations[name], channels))

    def test_weights_of_a_layer_of_ones_own(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 6, 1), Own())
        got, activations = pooled(model, self.maps, layers="1"), raw(model, self.maps, layers="1")
        torch.testing.assert_close(got["1"], mean_over_positions(activations["1"], LAST))

    @pytest.mark.parametrize("maps", ["pool", "positions"])
    def test_one_dimension(self, maps: str) -> None:
        model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(2))
        x = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0))
        for name, a in raw(model, x).items():
            with torch.no_grad(), Capture(model, name, maps=maps) as capture:  # type: ignore[arg-type]
                model(x)
            expected = a.mean(2) if maps == "pool" else a.transpose(1, 2).flatten(0, 1)
            torch.testing.assert_close(capture.activations[name], expected)

    def test_a_layer_of_as_many_channels_as_tokens_keeps_the_side_of_its_input(self) -> None:
        class Product(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.rand(4, 6))
                self.bias = nn.Parameter(torch.zeros(6))

            def forward(self, x: Tensor) -> Tensor:
                return x @ self.weight + self.bias

        model = nn.Sequential(nn.Linear(3, 4), Product())
        x = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0))
        got, activations = pooled(model, x, layers="1"), raw(model, x, layers="1")
        torch.testing.assert_close(got["1"], activations["1"].mean(1))

    def test_time_first_layers(self) -> None:
        attention = nn.MultiheadAttention(4, 2)

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = attention

            def forward(self, x: Tensor) -> Tensor:
                return self.attention(x, x, x)[0]

        x = torch.rand(7, 2, 4, generator=torch.Generator().manual_seed(0))
        got = pooled(Model(), x)["attention"]
        torch.testing.assert_close(got, attention(x, x, x)[0].mean(0).detach())

    def test_later_passes_of_other_sizes(self) -> None:
        model = seeded(partial(Functions, True))
        with torch.no_grad(), Capture(model, "activation", maps="pool") as capture:
            for size in (8, 6, 5):
                x = torch.rand(2, 3, size, 6, generator=torch.Generator().manual_seed(size))
                output = model(x)
                torch.testing.assert_close(
                    capture.activations["activation"], output.mean((1, 2)), msg=str(size)
                )

    def test_hooks_are_gone(self) -> None:
        model = seeded(partial(Functions, True))
        pooled(model, self.maps, layers="*")
        with pytest.raises(RuntimeError), Capture(model, "*", maps="pool"):
            model(torch.ones(2, 5, 3, 3))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    def test_hooks_of_the_search_are_there_for_one_pass_only(self) -> None:
        model = seeded(partial(Functions, True))
        counts = []
        with Capture(model, "activation", maps="pool"):
            for _ in range(2):
                model(self.maps)
                counts.append(len(model.conv._forward_hooks))
        assert counts == [1, 0]


class TestUnknown:
    def model(self) -> nn.Module:
        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x[:, None].expand(-1, 5, -1, -1)

        return nn.Sequential(Odd(), nn.ReLU())

    x = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))

    def test_is_said_once_with_the_names_of_the_layers(self) -> None:
        message = r"where 2 layers have their channels is not known: '0', '1'; .*channels= says"
        model = self.model()
        capture = Capture(model, "*", maps="pool")

        def three_passes() -> None:
            with torch.no_grad(), capture:
                for _ in range(3):
                    model(self.x)

        with pytest.warns(UserWarning, match=message) as caught:
            three_passes()
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert capture.activations["1"].shape == (2, 5)

    def test_is_asked_for(self) -> None:
        model = self.model()
        assert pooled(model, self.x, layers="*", channels="last")["1"].shape == (2, 4)
        assert pooled(model, self.x, layers="*", channels="first")["1"].shape == (2, 5)

    def test_is_asked_for_layer_by_layer(self) -> None:
        seen = []

        def channels(name: str, module: nn.Module, x: Tensor) -> str | None:
            seen.append((name, type(module).__name__, tuple(x.shape)))
            return LAST if name == "1" else FIRST

        got = pooled(self.model(), self.x, layers="*", channels=channels)
        assert [a.shape[1] for a in got.values()] == [5, 4]
        assert seen == [("0", "Odd", (2, 5, 3, 4)), ("1", "ReLU", (2, 5, 3, 4))]

    def test_a_callable_that_does_not_say(self) -> None:
        x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
        got = pooled(nn.Conv2d(3, 6, 1), x, layers=[ROOT], channels=lambda *_: None)[ROOT]
        assert got.shape == (2, 6)

    def test_bad_answers(self) -> None:
        with pytest.raises(ValueError, match=r"channels must be 'first', 'last', a callable or"):
            Capture(nn.ReLU(), maps="pool", channels="middle")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"channels must return .* got 'middle' for '1'"):
            pooled(self.model(), self.x, layers="1", channels=lambda *_: "middle")
