"""Of a layer made of others, what the network uses is taken: the whole, and not its parts."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from python_tests.support.capture_networks import seeded
from python_tests.support.wrapped_layers import (
    GCN,
    Adapted,
    AdaptedLinear,
    ConvEncoder,
    ConvNormAct,
    GCNConv,
    Retention,
)
from repsim_fast.capture import ROOT, Capture, layer_kind, list_layers
from repsim_fast.similarity import cka


class Net(nn.Module):
    """Projections and nothing else, as of a network that calls activations as functions."""

    def __init__(self, *widths: tuple[int, int], bias: bool = True) -> None:
        super().__init__()
        for number, (n_in, n_out) in enumerate(widths):
            self.add_module(str(number), nn.Linear(n_in, n_out, bias=bias))


def default_layers(model: nn.Module) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Capture(model).names


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


class TestAdapters:
    def model(self) -> nn.Sequential:
        return seeded(
            lambda: nn.Sequential(Adapted(nn.Linear(6, 5)), nn.ReLU(), AdaptedLinear(5, 4))
        ).eval()

    def test_the_sum_is_taken_and_not_its_terms(self, x: Tensor) -> None:
        model = self.model()
        with pytest.warns(UserWarning, match="5 layers are left out"):
            capture = Capture(model)
        with torch.no_grad():
            expected = model[0](x)
            with capture:
                model(x)
        assert list(capture.activations) == ["0", "1", "2"]
        torch.testing.assert_close(capture.activations["0"], expected)

    def test_the_whole_differs_from_the_base_layer(self, x: Tensor) -> None:
        model, other = self.model(), self.model()
        with torch.no_grad():
            for factor in other[0].up["default"].parameters():
                factor.normal_(generator=torch.Generator().manual_seed(1))
            base, whole, adapted = model[0].base_layer(x), model[0](x), other[0](x)
            same = cka(base, other[0].base_layer(x))
        assert float(same) == pytest.approx(1, abs=1e-6)
        got = []
        for network in (model, other):
            with torch.no_grad(), Capture(network, ["0"]) as capture:
                network(x)
            got.append(capture.activations["0"])
        assert float(cka(*got)) == pytest.approx(float(cka(whole, adapted)), abs=1e-6)
        assert float(cka(*got)) < 0.9

    def test_what_is_left_out_is_said_once_with_its_names(self) -> None:
        with pytest.warns(UserWarning, match="left out") as caught:
            Capture(self.model())
        (warning,) = caught
        text = str(warning.message)
        assert text.startswith("5 layers are left out that are parts of other layers")
        assert "'0.base_layer', '0.down.default', '0.up.default', '2.down', '2.up'" in text
        assert "name them by layers= to have them" in text
        assert warning.filename == __file__

    def test_parts_come_when_they_are_asked_for(self, x: Tensor) -> None:
        model = self.model()
        with torch.no_grad(), Capture(model, ["0.*", "0"]) as capture:
            model(x)
        parts = {"0.base_layer", "0.down.default", "0.up.default", "0"}
        assert parts < set(capture.activations)

    def test_a_model_that_is_such_a_layer(self) -> None:
        assert default_layers(Adapted(nn.Linear(6, 5))) == (ROOT,)

    def test_the_table_says_which_are_taken(self) -> None:
        kinds = {layer.name: layer.kind for layer in list_layers(self.model())}
        assert [name for name, kind in kinds.items() if kind] == ["0", "1", "2"]

    def test_an_adapter_of_a_library(self) -> None:
        peft = pytest.importorskip("peft", reason="peft is not installed")
        base = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
        model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0", "2"], r=2))
        assert default_layers(model.base_model.model) == ("0", "1", "2")


class TestMessagePassing:
    def test_the_output_after_message_passing_is_taken(self, x: Tensor) -> None:
        model = seeded(GCN).eval()
        links = torch.rand(40, 40, generator=torch.Generator().manual_seed(1)) < 0.1
        adjacency = (links | links.T | torch.eye(40, dtype=torch.bool)).float()
        assert default_layers(model) == ("conv1", "conv2")
        with torch.no_grad(), Capture(model, ["conv1", "conv2"]) as capture:
            model(x, adjacency)
        expected = model.conv1(x, adjacency).detach()
        torch.testing.assert_close(capture.activations["conv1"], expected)

    def test_kind(self) -> None:
        assert layer_kind(GCNConv(3, 4)) == "conv"


class TestQuantised:
    @pytest.mark.filterwarnings("ignore")  # of torch, that it will move elsewhere
    def test_dynamically(self, x: Tensor) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.lstm, self.last = (
                    nn.Linear(6, 5), nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)
                )  # fmt: skip

            def forward(self, x: Tensor) -> Tensor:
                return self.last(self.lstm(self.first(x)[:, None])[0][:, 0])

        model = torch.ao.quantization.quantize_dynamic(
            seeded(Model).eval(), {nn.Linear, nn.LSTM}, dtype=torch.qint8
        )
        assert type(model.first) is not nn.Linear
        assert default_layers(model) == ("first", "lstm", "last")
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            capture = Capture(model)
        with torch.no_grad(), capture:
            output = model(x)
        assert torch.equal(capture.activations["last"], output)

    def test_quantised_tensors_count_with_their_numbers(self, x: Tensor) -> None:
        class Quantise(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)

        with Capture(Quantise(), [ROOT]) as capture:
            capture.model(x)
        assert (capture.activations[ROOT] - x.clamp(-12.8, 12.7)).abs().max() <= 0.0501


class TestParametrised:
    def test_layers_count_once(self) -> None:
        model = nn.Sequential(weight_norm(nn.Linear(6, 5)), nn.Tanh(), weight_norm(nn.Linear(5, 4)))
        assert default_layers(model) == ("0", "1", "2")


class TestWhatIsNoLayerMadeOfOthers:
    def test_a_chain_of_layers(self) -> None:
        assert default_layers(nn.Sequential(ConvNormAct())) == ("0.conv", "0.bn")
        assert default_layers(ConvEncoder()) == ("convs.0", "convs.1", "convs.2")

    @pytest.mark.parametrize("bias", [True, False])
    def test_a_network_that_ends_as_narrow_as_it_begins(self, bias: bool) -> None:
        assert default_layers(Net((2, 64), (64, 64), (64, 2), bias=bias)) == ("0", "1", "2")

    @pytest.mark.parametrize("place", [0, 2])
    def test_a_network_with_a_bottleneck(self, place: int) -> None:
        widths = [(64, 8), (8, 64)]
        widths.insert(place, (64, 64))
        assert default_layers(Net(*widths)) == ("0", "1", "2")

    def test_a_network_that_is_called_as_a_layer(self) -> None:
        class DeepLinear(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Capture(DeepLinear()).names == ("layers.0", "layers.1", "layers.2")

    def test_a_whole_network_of_adapted_layers_stays_one(self) -> None:
        model = nn.Sequential(Adapted(nn.Linear(6, 5)), nn.Sequential(nn.Linear(5, 5), nn.ReLU()))
        assert default_layers(model) == ("0", "1.0", "1.1")


class TestUnknownTypes:
    def test_weights_that_no_rule_knows_are_said(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), Retention(), nn.Embedding(3, 2))
        message = r"1 layers with weights are left out.*\(Retention\): '1'; name them by layers="
        with pytest.warns(UserWarning, match=message):
            names = Capture(model).names
        assert names == ("0",)

    def test_scales_and_biases_are_none(self) -> None:
        class Scale(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.gamma = nn.Parameter(torch.ones(4, 1, 1))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Capture(nn.Sequential(nn.Linear(4, 4), Scale()))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 60),
        ("resnet50", 142),
        ("vgg11", 27),
        ("densenet121", 424),
        ("mobilenet_v3_small", 151),
        ("vit_b_16", 99),
        ("swin_t", 119),
        ("convnext_tiny", 119),
    ],
)
def test_usual_networks_have_the_layers_that_they_had(name: str, count: int) -> None:
    models = pytest.importorskip("torchvision", reason="torchvision is not installed").models
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(Capture(models.get_model(name)).names) == count


def test_language_models_have_the_layers_that_they_had() -> None:
    hub = pytest.importorskip("transformers", reason="transformers is not installed")
    with torch.device("meta"):
        assert len(Capture(hub.BertModel(hub.BertConfig())).names) == 147
        assert len(Capture(hub.GPT2Model(hub.GPT2Config())).names) == 109
