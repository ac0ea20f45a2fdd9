"""A small batch in which a sample comes twice tells which rows are samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import InPlace, seeded
from python_tests.support.row_networks import (
    AlwaysRandom,
    AtLeast,
    BatchAttention,
    Buffers,
    Experts,
    Following,
    Packed,
    Rearranged,
    Remembering,
    Siamese,
    TimeFirst,
    Windows,
)
from repsim_fast import compare
from repsim_fast.capture import list_layers
from repsim_fast.capture.probe import find_places, keeps_rows
from repsim_fast.capture.samples import Places, UnfitError, by_sample, find_place

PICKS = (0, 1, 0, 2)
DIFFER = "equal samples give different rows"


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def places(model: nn.Module, x: Tensor, *, strict: bool = True) -> Places:
    layers = [layer.name for layer in list_layers(model) if layer.kind]

    def forward(some: Tensor) -> None:
        with torch.no_grad():
            model(some)

    return find_places(model.eval(), layers, x, len(x), forward, strict=strict)


class TestFindPlace:
    samples = numbers(3, 5, 7)[list(PICKS)]  # (N, T, D), k = 5 parts

    @pytest.mark.parametrize(
        ("arrange", "place"),
        [
            (lambda x: x, "first"),
            (lambda x: x.transpose(0, 1), "second"),
            (lambda x: x.flatten(0, 1), "parts"),
            (lambda x: x.transpose(0, 1).flatten(0, 1), "views"),
            (lambda x: x[..., None, None].flatten(0, 1), "parts"),
            (lambda x: x[:, 0, 0], "first"),
            (lambda x: x[:, :, 0].flatten(), "parts"),
        ],
    )
    @pytest.mark.parametrize("noise", [0.0, 1e-6])
    def test_places(self, arrange: Callable[[Tensor], Tensor], place: str, noise: float) -> None:
        x = self.samples + noise * numbers(4, 5, 7)
        assert find_place(arrange(x), PICKS) == (place, "")

    def test_as_many_tokens_as_samples(self) -> None:
        x = self.samples[:, :4]
        assert find_place(x, PICKS) == ("first", "")
        assert find_place(x.transpose(0, 1), PICKS) == ("second", "")

    @pytest.mark.parametrize(
        ("x", "reason"),
        [
            (numbers(5, 7), "5 rows for 4 samples"),
            (numbers(4, 7), DIFFER),
            (numbers(4, 4, 7), DIFFER),
            (numbers(8, 7), "8 rows for 4 samples"),
            (numbers(0, 7), "0 rows for 4 samples"),
            (numbers(1)[0], "a single number"),
            (torch.ones(8, 3), "8 rows for 4 samples, all alike"),
        ],
    )
    def test_no_places(self, x: Tensor, reason: str) -> None:
        assert find_place(x, PICKS) == (None, reason)

    @pytest.mark.parametrize("x", [torch.ones(4, 3), torch.full((4, 3), torch.nan)])
    def test_what_does_not_vary_is_taken_by_its_number(self, x: Tensor) -> None:
        assert find_place(x, PICKS) == ("first", "")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_dtypes(self, dtype: torch.dtype) -> None:
        assert find_place(self.samples.to(dtype).transpose(0, 1), PICKS) == ("second", "")

    def test_another_order_of_the_samples(self) -> None:
        assert find_place(self.samples.flip(0), PICKS) == (None, DIFFER)
        assert find_place(self.samples[[2, 1, 3, 0]], PICKS) == (None, DIFFER)


class TestBySample:
    @pytest.mark.parametrize("channels", ["first", "last"])
    def test_parts_become_positions_and_views_channels(self, channels: str) -> None:
        x = numbers(3, 2, 5, 6, 7)  # (N, k, C, H, W)
        if channels == "last":
            x = x.movedim(2, -1)
        parts = by_sample(x.flatten(0, 1), "parts", 3, channels)  # type: ignore[arg-type]
        views = by_sample(x.transpose(0, 1).flatten(0, 1), "views", 3, channels)  # type: ignore[arg-type]
        if channels == "first":
            assert torch.equal(parts, x.transpose(1, 2))
            assert torch.equal(views, x.flatten(1, 2))
        else:
            assert torch.equal(parts, x)
            assert torch.equal(views, torch.cat([x[:, 0], x[:, 1]], -1))

    def test_rows_that_do_not_fit(self) -> None:
        with pytest.raises(UnfitError, match="7 rows for 3 samples"):
            by_sample(numbers(7, 2), "parts", 3, None)


class TestModels:
    def test_experts(self) -> None:
        found = places(seeded(Experts), numbers(40, 7, 6))
        assert found.by_layer["before"] == found.by_layer["after"] == "first"
        assert found.by_layer["router"] == "parts"
        assert not found.note
        assert set(found.reasons) <= {"experts.0", "experts.1", "experts.2"}
        # Those that were given as many tokens of each of a few samples, by chance.
        model = seeded(Experts)
        given: dict[str, Tensor] = {}
        for name in found.middle.keys() - {"router"}:
            model.get_submodule(name).register_forward_hook(
                lambda m, a, out, name=name: given.update({name: out})
            )
        model(numbers(40, 7, 6))
        for name, x in given.items():
            with pytest.raises(UnfitError, match="rows"):
                found.check_middle(name, x, 40)

    def test_windows(self) -> None:
        found = places(seeded(Windows), numbers(10, 3, 8, 8))
        assert found.by_layer == {
            "embed": "first",
            "inner": "parts",
            "head": "first",
        }

    def test_siamese(self) -> None:
        found = places(seeded(Siamese), numbers(10, 2, 3, 6, 6))
        assert found.by_layer == {"conv": "views", "fc": "views"}

    @pytest.mark.parametrize("length", [4, 5])
    def test_time_first(self, length: int) -> None:
        found = places(seeded(TimeFirst), numbers(10, length, 8))
        assert found.by_layer["encoder.layers.0.linear1"] == "second"
        assert found.by_layer["head"] == "first"
        assert not found.reasons

    def test_samples_that_attend_to_one_another(self) -> None:
        found = places(seeded(BatchAttention), numbers(10, 4))
        assert found == Places({"a": "first", "b": "first"})

    def test_mappings_and_tuples_of_inputs(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bilinear = nn.Bilinear(3, 4, 5)

            def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
                assert len(a) == len(b)
                return self.bilinear(a, b) * scale

        a, b = numbers(10, 3), numbers(10, 4)
        model = Two()
        runs = {
            "mapping": ({"a": a, "b": b, "scale": 2.0}, lambda x: model(**x)),
            "tuple": ((a, b), lambda x: model(*x)),
        }
        for inputs, forward in runs.values():
            found = find_places(model, ["bilinear"], inputs, 10, forward, strict=True)
            assert found == Places({"bilinear": "first"})


class TestEqualSamplesWithDifferentRows:
    def test_a_random_model_is_seen_by_the_same_random_numbers(self) -> None:
        assert places(seeded(AlwaysRandom), numbers(10, 4)) == Places({"a": "first", "b": "first"})

    def test_samples_that_depend_on_the_one_before_are_counted(self) -> None:
        found = places(seeded(Following), numbers(10, 4))
        assert found.by_layer == {"a": "first", "b": "first"}
        assert not found.reasons
        assert f"rows are only counted, not seen to be samples, because {DIFFER} of" in found.note
        assert "1 layers: 'b'" in found.note

    def test_experts(self) -> None:
        found = places(seeded(lambda: Experts(count=7, expert_choice=True)), numbers(40, 7, 6))
        assert {found.reasons[f"experts.{i}"] for i in range(7)} == {DIFFER}
        assert found.by_layer["after"] == "first"  # where the samples compete for experts
        assert "1 layers: 'after'" in found.note

    def test_layers_that_were_asked_for_are_taken_with_a_note(self) -> None:
        model = seeded(lambda: Experts(count=7, expert_choice=True))
        found = places(model, numbers(40, 7, 6), strict=False)
        assert not found.reasons
        assert "'experts.0'" in found.note


def by_length(x: Tensor) -> Tensor:
    return (x != 0).sum(1).argsort(descending=True, stable=True)


def mostly_long(*shape: int) -> Tensor:
    """Samples of which every fourth, never the first, middle or last of 64, ends in zeros."""
    x = numbers(*shape)
    x[1::4, shape[1] // 2 :] = 0
    return x


class TestOtherOrders:
    """Samples that a small batch has in order by chance, or in any other."""

    @pytest.mark.parametrize(
        "order",
        [
            by_length,
            lambda x: torch.arange(len(x)).flip(0),
            lambda x: torch.arange(len(x)).roll(1),
            lambda x: x[:, 0].argsort(),
        ],
    )
    def test_rows_in_an_order_of_the_layer(self, order: Callable[[Tensor], Tensor]) -> None:
        found = places(seeded(lambda: Rearranged(order)), mostly_long(64, 4))
        assert found.by_layer == {"a": "first", "c": "first"}
        assert found.reasons.keys() == {"b"}
        assert not found.note

    @pytest.mark.parametrize("seed", range(20))
    def test_rows_by_length_of_samples_in_any_order(self, seed: int) -> None:
        x = mostly_long(64, 4)[torch.randperm(64, generator=torch.Generator().manual_seed(seed))]
        found = places(seeded(lambda: Rearranged(by_length)), x)
        assert found.by_layer == {"a": "first", "c": "first"}

    def test_they_count_with_a_note_if_they_were_asked_for(self) -> None:
        found = places(seeded(lambda: Rearranged(by_length)), mostly_long(64, 4), strict=False)
        assert found.by_layer == dict.fromkeys("abc", "first")
        assert "only counted" in found.note
        assert "1 layers: 'b'" in found.note

    @pytest.mark.parametrize("seed", range(6))
    def test_buffers_of_experts(self, seed: int) -> None:
        torch.manual_seed(seed)
        found = places(Buffers(), numbers(200, 4))
        assert found.by_layer == {"gate": "first", "last": "first"}
        assert found.reasons.keys() == {"one", "other"}

    @pytest.mark.parametrize("strict", [True, False])
    def test_packed_sentences_most_of_which_are_as_long(self, strict: bool) -> None:
        found = places(seeded(Packed), mostly_long(64, 8, 4), strict=strict)
        assert found.by_layer == {"before": "first", "after": "first"}
        assert "for 16 samples" in found.reasons["gru"]

    def test_packed_sentences_all_as_long(self) -> None:
        found = places(seeded(Packed), numbers(64, 8, 4))
        assert found.by_layer["gru"] == "views"

    def test_views_of_another_number_in_the_first_batch(self) -> None:
        x = numbers(64, 8, 4)
        found = places(seeded(Packed), x)
        with pytest.raises(UnfitError, match="rows"):
            found.check_middle("gru", numbers(7 * 64, 5), 64)

    def test_random_numbers_that_few_samples_do_not_show(self) -> None:
        class Rarely(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

            def forward(self, x: Tensor) -> Tensor:
                x = self.a(x)
                scale = torch.ones(len(x), 1)
                scale[torch.randperm(len(x))[: len(x) // 5]] = 3.0  # none of four
                return self.b(x * scale)

        assert places(seeded(Rarely), numbers(40, 4)) == Places({"a": "first", "b": "first"})

    def test_statistics_of_the_batch(self) -> None:
        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

            def forward(self, x: Tensor) -> Tensor:
                return self.b(nn.functional.batch_norm(self.a(x), None, None, training=True))

        assert places(seeded(Normed), numbers(40, 4)) == Places({"a": "first", "b": "first"})


class TestWhatCannotBeSeen:
    def test_a_model_that_refuses_few_samples(self) -> None:
        found = places(AtLeast(8), numbers(10, 4))
        assert (found.by_layer, found.reasons) == ({}, {})
        assert "does not run on four samples of a batch: got 4 samples" in found.note

    def test_single_samples(self) -> None:
        assert places(AtLeast(8), numbers(1, 4)) == Places()

    def test_two_samples(self) -> None:
        assert places(seeded(BatchAttention), numbers(2, 4)).by_layer["a"] == "first"


class TestKnownCode:
    def test_layers_of_torch(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 3))
        assert keeps_rows(model)
        passes: list[int] = []
        model[0].register_forward_hook(lambda m, a, out: passes.append(len(out)))
        assert places(model, numbers(10, 3, 1, 1)) == Places()
        assert passes == []

    @pytest.mark.parametrize(
        "module",
        [
            nn.Flatten(0, 1),
            nn.Unflatten(0, (2, -1)),
            nn.LSTM(3, 4),
            nn.MultiheadAttention(4, 2),
            InPlace(),
        ],
    )
    def test_what_may_do_other_things(self, module: nn.Module) -> None:
        assert not keeps_rows(nn.Sequential(nn.Linear(3, 3), module))

    def test_a_class_of_ones_own_with_a_constructor_only(self) -> None:
        class Net(nn.Sequential):
            def __init__(self) -> None:
                super().__init__(nn.Linear(3, 4), nn.ReLU())

        class Other(Net):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x[::2])

        assert keeps_rows(Net())
        assert not keeps_rows(Other())

    def test_a_forward_of_ones_own(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3))
        model.forward = lambda x: x[::2]  # type: ignore[method-assign]
        assert not keeps_rows(model)

    @pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "swin_t", "googlenet"])
    def test_networks_of_torchvision(self, name: str) -> None:
        models = pytest.importorskip("torchvision", reason="torchvision is not installed").models
        options = {"init_weights": False} if name == "googlenet" else {}
        with torch.device("meta"):
            assert keeps_rows(models.get_model(name, **options))


class TestNoTrace:
    def test_attributes_buffers_and_random_state(self) -> None:
        model = Remembering()
        model.sizes.append(99)
        sizes, seen, state = model.sizes, model.seen, torch.get_rng_state()
        found = places(model.train(), numbers(10, 4))
        assert found.by_layer["fc"] == "first"
        assert (model.passes, model.sizes) == (0, [99])
        assert model.sizes is sizes
        assert model.seen is seen
        assert float(seen) == 0
        assert "latest" not in vars(model)
        assert torch.equal(torch.get_rng_state(), state)
        assert not model.fc._forward_hooks

    def test_collections_of_any_kind(self) -> None:
        model = Remembering()
        model.table, model.names = {"a": 1}, {"x"}
        table, names = model.table, model.names

        def remembers(module: nn.Module, args: object) -> None:
            table["b"] = 2
            names.clear()

        with model.register_forward_pre_hook(remembers):
            places(model, numbers(10, 4))
        assert model.table is table
        assert model.names is names
        assert (table, names) == ({"a": 1}, {"x"})

    def test_hooks_that_the_first_pass_puts_in(self) -> None:
        """As transformers do; the note that they are there must not go without them."""

        class Collecting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
                self.collected: list[Tensor] = []
                self.ready = False

            def forward(self, x: Tensor) -> Tensor:
                if not self.ready:
                    self.layer.register_forward_hook(lambda m, a, y: self.collected.append(y))
                    self.ready = True
                self.collected.clear()
                self.layer(x)
                [only] = self.collected
                return self.last(only)

        model = Collecting().eval()
        assert not places(model, numbers(10, 4)).note
        assert not model.ready
        assert not model.layer._forward_hooks
        result = compare([model], numbers(40, 4), batch_size=10)
        assert len(result.layers[0]) == 2
        assert len(model.layer._forward_hooks) == 1
        model(numbers(10, 4))

    def test_after_an_exception(self) -> None:
        model = nn.ModuleDict({"a": AtLeast(8), "b": Remembering()})
        model.forward = lambda x: model["a"](model["b"](x))  # type: ignore[method-assign]
        assert places(model, numbers(10, 4)).note
        assert model["b"].passes == 0
        assert not any(m._forward_hooks for m in model.modules())
