"""The seam between the engine and the measures, and what the engine keeps in memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.comparison.compare import compare
from repsim_fast.similarity.base.accumulator import Similarities
from repsim_fast.similarity.measures.cka import CKA
from repsim_fast.similarity.streaming.gram import GramAccumulator


class Recorder:
    """A measure that notes what it is given: the similarity is always 0.5."""

    description = "recorded"
    min_samples = 1
    any_feature_order = False
    samples_may_return = True
    capturable = True

    def __init__(self, **options: object) -> None:
        self.options = options
        self.batches: list[dict[int, Tensor]] = [{}]
        self.sizes: list[int] = []
        self.repeated: list[tuple[int, int]] = []

    def add(self, layer: int, features: Tensor) -> None:
        assert layer not in self.batches[-1]
        self.batches[-1][layer] = features.clone()

    def repeat(self, layer: int, of: int) -> None:
        self.repeated.append((layer, of))
        self.batches[-1][layer] = self.batches[-1][of]

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        self.sizes.append(n)
        self.batches.append({})

    def compute(self, *, bare: bool = False) -> Similarities:
        size = len(self.batches[0])
        half = torch.full((size, size), 0.5, dtype=torch.float64)
        return Similarities(half, half / 10, sum(self.sizes), len(self.sizes), {}, "")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def make(measure: CKA, **options: object) -> Recorder:
        made.append(Recorder(**options))
        return made[-1]

    monkeypatch.setattr(CKA, "accumulator", make)
    return made


class TestAnotherMeasure:
    def test_gets_each_layer_once_a_batch_with_steady_numbers(
        self, recorder: list[Recorder], net_a: nn.Module, net_b: nn.Module, images: Tensor
    ) -> None:
        result = compare(net_a, net_b, images, layers=["0", "7"], batch_size=16)
        (measure,) = recorder
        assert measure.sizes == [16, 16, 8]
        for batch, n in zip(measure.batches, measure.sizes, strict=False):
            assert [(k, tuple(f.shape)) for k, f in batch.items()] == [
                (0, (n, 4 * 64)), (1, (n, 5)), (2, (n, 6 * 64)), (3, (n, 5)),
            ]  # fmt: skip
        assert (result.value == 0.5).all()
        assert (result.n_samples, result.n_batches) == (40, 3)

    def test_features_keep_their_order_where_it_matters(
        self, recorder: list[Recorder], net_a: nn.Module, images: Tensor
    ) -> None:
        compare([net_a], images)
        compare(
            [net_a.to(memory_format=torch.channels_last)],
            images.contiguous(memory_format=torch.channels_last),
        )
        plain, last = (r.batches[0] for r in recorder)
        torch.testing.assert_close(plain, last, atol=1e-5, rtol=1e-5)


class Block(nn.Module):
    """Returns what its ReLU returned, as residual blocks do, changed in place or not."""

    def __init__(self, change: float = 0.0, *, unseen: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.change = change
        self.unseen = unseen  # by autograd's count of changes

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        if self.change != 0.0:
            (x.data if self.unseen else x).add_(self.change)
        return x


class TestTheSameTensorTwice:
    LAYERS = ("conv", "relu", "(model)")

    def test_is_taken_once(self, recorder: list[Recorder], images: Tensor) -> None:
        compare([Block()], images, layers=self.LAYERS, batch_size=20)
        (measure,) = recorder
        assert measure.repeated == [(2, 1), (2, 1)]
        assert torch.equal(measure.batches[0][1], measure.batches[0][2])

    @pytest.mark.parametrize("unseen", [False, True])
    def test_but_not_after_a_change_in_place(
        self, recorder: list[Recorder], images: Tensor, unseen: bool
    ) -> None:
        block = Block(change=1.0, unseen=unseen)
        compare([block], images, layers=self.LAYERS, batch_size=20)
        (measure,) = recorder
        assert measure.repeated == []
        for batch in measure.batches[:2]:
            torch.testing.assert_close(batch[2], batch[1] + 1.0)

    @pytest.mark.parametrize("measure", ["cka", "procrustes_similarity"])
    def test_gives_the_layer_the_same_similarities(self, measure: str, images: Tensor) -> None:
        block = Block()
        result = compare([block], images, layers=self.LAYERS, batch_size=20, measure=measure)
        twice = result.value[1]
        assert twice[2] == pytest.approx(twice[1], abs=1e-6)
        assert result.value[0, 2] == pytest.approx(result.value[0, 1], abs=1e-6)

    def test_counts_in_inference_mode_as_two(
        self, recorder: list[Recorder], images: Tensor
    ) -> None:
        class Inferring(Block):
            def forward(self, x: Tensor) -> Tensor:
                with torch.inference_mode():
                    return super().forward(x)

        compare([Inferring()], images, layers=self.LAYERS)
        assert recorder[0].repeated == []  # changes cannot be seen there


class TestHooks:
    def test_only_the_models_own_passes_count(self, images: Tensor) -> None:
        """Data that runs the model itself, as a cache of features might, while hooks are there."""
        model = Block()

        def batches() -> list[Tensor]:
            class Running(list[Tensor]):
                def __iter__(self):
                    for x in images.split(20):
                        model(x.flip(0))
                        yield x

            return Running(images.split(20))

        plain = compare([model], list(images.split(20)), layers=["conv", "relu"])
        disturbed = compare([model], batches(), layers=["conv", "relu"])
        assert (plain.value == disturbed.value).all()
        assert not model.conv._forward_hooks

    def test_two_choices_of_layers_of_one_model(self, images: Tensor) -> None:
        model = Block()
        both = compare([model, model], images, layers=[["conv"], ["relu"]], batch_size=20)
        alone = compare([model], images, layers=["conv", "relu"], batch_size=20)
        assert both.value[0, 1] == alone.value[0, 1]


class TestMemory:
    def test_no_activation_outlives_its_use(self, images: Tensor) -> None:
        """Only the input and the output of the running layer are alive, however deep the model."""
        model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(10))).eval()
        alive: list[weakref.ref[Tensor]] = []
        most = 0

        def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal most
            alive.append(weakref.ref(output))
            most = max(most, sum(reference() is not None for reference in alive))

        for module in model:
            module.register_forward_hook(watch)
        compare([model], images, batch_size=20)
        assert len(alive) == 20
        assert most <= 2

    def test_channels_last_is_not_copied(
        self, monkeypatch: pytest.MonkeyPatch, images: Tensor
    ) -> None:
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        produced: list[int] = []
        taken: list[int] = []
        model.register_forward_hook(lambda m, a, output: produced.append(output.data_ptr()))
        add = GramAccumulator.add
        monkeypatch.setattr(
            GramAccumulator,
            "add",
            lambda self, layer, x: (taken.append(x.data_ptr()), add(self, layer, x)),
        )
        compare([model], images.contiguous(memory_format=torch.channels_last))
        assert produced == taken


def test_models_spread_over_devices_stay_where_they_are(images: Tensor) -> None:
    spread = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1, device="meta"))
    with pytest.raises(ValueError, match=r"cannot hold Sequential.*\['cpu', 'meta'\]"):
        compare([spread], images, device="cpu")
