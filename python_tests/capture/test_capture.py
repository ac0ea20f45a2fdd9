from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import InPlace, Outputs, Reversed, seeded
from repsim_fast.capture import ROOT, Capture, list_layers


def recorded(model: nn.Module, x: Tensor, *args, **options) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    with torch.no_grad(), Capture(model, *args, **options) as capture:
        model(x)
    return capture.activations


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class TestWhatIsCaptured:
    def test_in_place_relu_does_not_overwrite_the_batch_norm(self, images: Tensor) -> None:
        model = seeded(InPlace).eval()
        got = recorded(model, images)
        with torch.no_grad():
            bn1 = model.bn1(model.conv1(images)).flatten(1)
        torch.testing.assert_close(got["bn1"], bn1)
        torch.testing.assert_close(got["relu"], bn1.clamp(min=0))
        assert (got["bn1"] < 0).any()

    def test_handing_out_gives_each_activation_before_it_is_overwritten(
        self, images: Tensor
    ) -> None:
        model, lows = seeded(InPlace).eval(), {}
        with torch.no_grad(), Capture(model, on_activation=lambda n, x: lows.update({n: x.min()})):
            model(images)
        assert lows["bn1"] < 0
        assert lows["relu"] == 0

    def test_handing_out_makes_no_copy(self, images: Tensor) -> None:
        model, pointers = seeded(InPlace).eval(), {}
        seen: list[int] = []
        model.conv1.register_forward_hook(lambda m, a, out: seen.append(out.data_ptr()))
        with Capture(model, "conv1", on_activation=lambda n, x: pointers.update({n: x.data_ptr()})):
            model(images)
        assert pointers == {"conv1": seen[0]}

    def test_a_module_called_twice_has_two_names_in_order_of_execution(
        self, images: Tensor
    ) -> None:
        names = list(recorded(seeded(InPlace), images))
        assert names == ["conv1", "bn1", "relu", "conv2", "bn2", "relu#2", "pool", "fc"]

    def test_first_calls_only(self, images: Tensor) -> None:
        names = list(recorded(seeded(InPlace), images, calls="first"))
        assert names == ["conv1", "bn1", "relu", "conv2", "bn2", "pool", "fc"]

    def test_single_calls(self, images: Tensor) -> None:
        model = seeded(InPlace)
        assert list(recorded(model, images, ["relu#2"])) == ["relu#2"]
        assert list(recorded(model, images, ["relu#1", "fc"])) == ["relu", "fc"]
        assert list(recorded(model, images, ["relu#2", "relu#1"])) == ["relu", "relu#2"]
        assert list(recorded(model, images, ["relu#2", "relu*"])) == ["relu", "relu#2"]
        with pytest.raises(ValueError, match="'rel#2' matched no layer"):
            Capture(model, ["rel#2"])

    def test_a_module_shared_under_two_names_has_the_first(self) -> None:
        linear = nn.Linear(4, 4)
        got = recorded(nn.Sequential(linear, nn.Tanh(), linear), torch.ones(2, 4))
        assert list(got) == ["0", "1", "0#2"]

    def test_labels_follow_execution_not_declaration(self) -> None:
        model = Reversed()
        assert [layer.name for layer in list_layers(model)] == ["last", "first", ROOT]
        got = recorded(model, torch.ones(2, 5))
        assert {name: x.shape[1] for name, x in got.items()} == {"first": 3, "last": 2}
        assert list(got) == ["first", "last"]

    def test_each_pass_starts_afresh(self, images: Tensor) -> None:
        model = seeded(InPlace).eval()
        with torch.no_grad(), Capture(model) as capture:
            model(images)
            model(images[:2])
        assert len(capture.activations) == 8
        assert all(len(x) == 2 for x in capture.activations.values())

    def test_first_floating_tensor_of_tuples_and_mappings(self) -> None:
        x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
        model = seeded(Outputs)
        got = recorded(model, x, list_names(model), maps=None)
        assert got["lstm"].shape == (2, 3, 6)
        assert got["attention"].shape == (2, 3, 4)  # time first, turned round
        assert got["mapping"].shape == (2, 3, 5)
        assert "argmax" not in got

    def test_dataclasses_and_what_is_inside(self) -> None:
        @dataclass
        class Output:
            state: dict[str, Tensor]
            weights: Tensor | None = None

        class Block(nn.Linear):
            def forward(self, x: Tensor) -> Output:  # type: ignore[override]
                return Output({"number": torch.tensor(1), "hidden": super().forward(x)})

        model = seeded(lambda: Block(3, 4))
        x = torch.randn(5, 3)
        assert [layer.name for layer in list_layers(model, x)] == [ROOT]
        with Capture(model, ROOT) as capture:
            output = model(x)
        assert torch.equal(capture.activations[ROOT], output.state["hidden"])

    def test_gradients_flow_through_what_was_recorded(self, images: Tensor) -> None:
        model = seeded(InPlace)
        with Capture(model, "conv1") as capture:
            model(images)
        capture.activations["conv1"].square().sum().backward()
        assert model.conv1.weight.grad is not None

    def test_output_of_the_model_by_its_name(self, images: Tensor) -> None:
        model = seeded(InPlace).eval()
        with torch.no_grad():
            torch.testing.assert_close(recorded(model, images, [ROOT])[ROOT], model(images))

    def test_a_bare_layer_is_its_own_layer(self) -> None:
        assert list(recorded(nn.Linear(3, 2), torch.ones(2, 3))) == [ROOT]


def list_names(model: nn.Module) -> list[str]:
    return [layer.name for layer in list_layers(model)]


class TestMaps:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    tokens = torch.arange(2 * 7 * 3, dtype=torch.float32).reshape(2, 7, 3)

    def features(self, x: Tensor, maps: object) -> Tensor:
        channels = "last" if x.ndim == 3 else "first"
        return recorded(nn.ReLU(), x, [ROOT], maps=maps, channels=channels)[ROOT]

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_maps(self, memory_format: torch.memory_format) -> None:
        x = self.x.contiguous(memory_format=memory_format)
        assert torch.equal(self.features(x, "flatten"), self.x.reshape(2, 60))
        assert torch.allclose(self.features(x, "pool"), self.x.mean((2, 3)))
        positions = self.features(x, "positions")
        assert positions.shape == (40, 3)
        assert torch.equal(positions[20 + 1 * 5 + 2], self.x[1, :, 1, 2])

    def test_tokens(self) -> None:
        assert torch.equal(self.features(self.tokens, "flatten"), self.tokens.reshape(2, 21))
        assert torch.allclose(self.features(self.tokens, "pool"), self.tokens.mean(1))
        assert torch.equal(self.features(self.tokens, "positions"), self.tokens.reshape(14, 3))

    def test_callable(self) -> None:
        last = self.features(self.tokens, lambda x: x[:, -1])
        assert torch.equal(last, self.tokens[:, -1])

    def test_vectors_and_single_numbers_a_sample(self) -> None:
        for maps in ("flatten", "pool", "positions"):
            assert self.features(torch.ones(4, 3), maps).shape == (4, 3)
            assert self.features(torch.ones(4), maps).shape == (4, 1)

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match=r"maps must be 'flatten', 'pool', .* or a callable"):
            Capture(nn.ReLU(), maps="average")  # type: ignore[arg-type]


class TestHygiene:
    def test_hooks_are_gone(self, images: Tensor) -> None:
        model = seeded(InPlace)
        recorded(model, images)
        assert hooks_of(model) == 0

    def test_hooks_are_gone_after_an_exception_in_the_model(self) -> None:
        model = seeded(InPlace)
        with pytest.raises(RuntimeError), Capture(model):
            model(torch.ones(2, 5, 8, 8))
        assert hooks_of(model) == 0

    def test_hooks_are_gone_after_an_exception_in_the_callback(self, images: Tensor) -> None:
        def fail(name: str, activation: Tensor) -> None:
            raise KeyError(name)

        model = seeded(InPlace)
        with pytest.raises(KeyError, match="conv1"), Capture(model, on_activation=fail):
            model(images)
        assert hooks_of(model) == 0

    def test_other_hooks_stay_and_are_seen(self, images: Tensor) -> None:
        model = seeded(InPlace).eval()
        model.conv1.register_forward_hook(lambda module, args, output: output + 1)
        with torch.no_grad():
            expected = model.conv1(images).flatten(1)
        torch.testing.assert_close(recorded(model, images)["conv1"], expected)
        assert hooks_of(model) == 1

    def test_output_and_gradients_are_those_of_the_bare_model(self, images: Tensor) -> None:
        model = seeded(InPlace)
        model(images).sum().backward()
        bare = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        with Capture(model):
            model(images).sum().backward()
        torch.testing.assert_close([p.grad for p in model.parameters()], bare)

    def test_modes_are_left_alone(self, images: Tensor) -> None:
        model = seeded(InPlace).train()
        model.bn1.eval()
        recorded(model, images)
        assert model.training
        assert not model.bn1.training

    def test_list_layers_restores_every_mode(self, images: Tensor) -> None:
        model = seeded(InPlace).train()
        model.bn1.eval()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        list_layers(model, images)
        assert [m.training for m in model.modules()] == [
            not isinstance(m, nn.BatchNorm2d) or m is model.bn2 for m in model.modules()
        ]
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert hooks_of(model) == 0

    def test_list_layers_leaves_buffers_and_random_state(self, images: Tensor) -> None:
        class AlwaysTraining(nn.BatchNorm2d):
            def forward(self, x: Tensor) -> Tensor:
                self.running_mean.add_(x.mean())
                return nn.functional.dropout(super().forward(x), 0.5)

        model = nn.Sequential(AlwaysTraining(3), nn.ReLU())
        before, state = model[0].running_mean.clone(), torch.get_rng_state()
        assert len(list_layers(model, images)) == 3
        assert torch.equal(model[0].running_mean, before)
        assert torch.equal(torch.get_rng_state(), state)

    def test_can_be_used_again_but_not_twice_at_once(self, images: Tensor) -> None:
        model = seeded(InPlace)
        capture = Capture(model)
        for _ in range(2):
            with capture:
                model(images)
            assert len(capture.activations) == 8
        with capture, pytest.raises(RuntimeError, match="active already"):
            capture.__enter__()
        assert hooks_of(model) == 0


class TestWrappedModels:
    def test_compiled_before(self, images: Tensor) -> None:
        model = seeded(InPlace).eval()
        compiled = torch.compile(model, backend="eager")
        with torch.no_grad():
            compiled(images)  # a graph without hooks exists now
            with Capture(compiled) as capture:
                compiled(images)
        expected = recorded(model, images)
        assert list(capture.activations) == list(expected)
        torch.testing.assert_close(capture.activations["fc"], expected["fc"])

    def test_compiled_in_place(self, images: Tensor) -> None:
        model = seeded(InPlace).eval()
        model.compile(backend="eager")
        with torch.no_grad():
            model(images)
        assert len(recorded(model, images)) == 8

    def test_a_compiled_part_keeps_its_name(self) -> None:
        model = nn.Sequential(torch.compile(nn.Linear(4, 3), backend="eager"), nn.ReLU())
        assert list(recorded(model, torch.ones(2, 4))) == ["0", "1"]

    def test_a_parametrized_layer_counts_and_its_parametrization_does_not(self) -> None:
        model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
        assert list(recorded(model, torch.ones(2, 4))) == ["0"]

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_a_transformer_with_padded_samples(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.TransformerEncoder(layer, 2).eval()
        x, padding = torch.randn(4, 3, 8), torch.zeros(4, 3, dtype=torch.bool)
        padding[1:, 2] = True
        with torch.no_grad():
            with Capture(model, "layers.*", maps=None) as capture:
                inside = model(x, src_key_padding_mask=padding)
            outside = model(x, src_key_padding_mask=padding)
        assert torch.backends.mha.get_fastpath_enabled()
        assert {tuple(a.shape[:2]) for a in capture.activations.values()} == {(4, 3)}
        torch.testing.assert_close(inside[~padding], outside[~padding])

    def test_data_parallel(self, images: Tensor) -> None:
        model = seeded(InPlace)
        parallel = nn.DataParallel(model)
        with Capture(parallel) as capture:
            parallel(images)
        assert "conv1" in capture.activations

    def test_data_parallel_over_several_devices(self) -> None:
        parallel = nn.DataParallel(seeded(InPlace))
        parallel.device_ids = [0, 1]
        with pytest.raises(TypeError, match=r"over 2 devices.*model\.module"):
            Capture(parallel)

    @pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
    def test_scripted(self) -> None:
        scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
        with pytest.raises(TypeError, match="TorchScript"):
            Capture(scripted)
        inside = nn.Sequential(nn.Linear(3, 3), scripted)
        assert list(recorded(inside, torch.ones(2, 3))) == ["0"]

    def test_no_module(self) -> None:
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got function"):
            Capture(lambda x: x)  # type: ignore[arg-type]
