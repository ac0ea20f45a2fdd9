"""The seam between the engine and the measures, and what the engine keeps in memory."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.comparison.compare import compare
from repsim_fast.similarity.streaming import accumulator as _accumulators
from repsim_fast.similarity.streaming.accumulator import CKAAccumulator, Estimate, NotFiniteError


class Recorder:
    """A measure that notes what it is given: the similarity is always 0.5."""

    min_samples = 1
    any_feature_order = False
    only_queues = True

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

    def end_batch(self, n: int) -> None:
        self.sizes.append(n)
        self.batches.append({})

    def estimate(self) -> Estimate:
        size = len(self.batches[0])
        half = torch.full((size, size), 0.5, dtype=torch.float64)
        return Estimate(half, half / 10, sum(self.sizes), len(self.sizes), ())


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def make(**options: object) -> Recorder:
        made.append(Recorder(**options))
        return made[-1]

    monkeypatch.setattr(_accumulators, "MEASURES", {"cka": make})
    monkeypatch.setitem(compare.__globals__, "MEASURES", {"cka": make})
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

    def __init__(self, change: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        return x if self.change == 0.0 else x.add_(self.change)


class TestTheSameTensorTwice:
    LAYERS = ("conv", "relu", "(model)")

    def test_is_taken_once(self, recorder: list[Recorder], images: Tensor) -> None:
        compare([Block()], images, layers=self.LAYERS, batch_size=20)
        (measure,) = recorder
        assert measure.repeated == [(2, 1), (2, 1)]
        assert torch.equal(measure.batches[0][1], measure.batches[0][2])

    def test_but_not_after_a_change_in_place(
        self, recorder: list[Recorder], images: Tensor
    ) -> None:
        compare([Block(change=1.0)], images, layers=self.LAYERS, batch_size=20)
        (measure,) = recorder
        assert measure.repeated == []
        torch.testing.assert_close(measure.batches[0][2], measure.batches[0][1] + 1.0)

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
        add = CKAAccumulator.add
        monkeypatch.setattr(
            CKAAccumulator,
            "add",
            lambda self, layer, x: (taken.append(x.data_ptr()), add(self, layer, x)),
        )
        compare([model], images.contiguous(memory_format=torch.channels_last))
        assert produced == taken


class TestCKAAccumulator:
    def make(self, capacity: int = 1) -> CKAAccumulator:
        return CKAAccumulator(estimator="unbiased", precision=None, capacity=capacity)

    def features(self, n: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)

    def test_more_layers_than_expected(self) -> None:
        tight, ample = self.make(1), self.make(50)
        for accumulator in (tight, ample):
            for n in (8, 8, 5, 8):
                for layer in range(7):
                    accumulator.add(layer, self.features(n, layer))
                accumulator.end_batch(n)
        torch.testing.assert_close(tight.estimate().value, ample.estimate().value)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("precision", [None, "bfloat16"])
    def test_features_by_address_and_by_operator(
        self, dtype: torch.dtype, precision: str | None
    ) -> None:
        if dtype == torch.float64 and precision:
            pytest.skip("float64 features have float64 products")

        class Marked(Tensor):
            """Of no kind whose memory may be read."""

        def layouts(x: Tensor) -> list[Tensor]:
            strided = torch.stack([x, x], dim=-1)[..., 0]
            assert not strided.is_contiguous()
            return [x.reshape(8, 2, 3), strided, x.as_subclass(Marked)]

        by_address, other = (
            CKAAccumulator(estimator="unbiased", precision=precision, capacity=3) for _ in range(2)
        )
        for batch in range(3):
            first, second, third = (self.features(8, 3 * batch + i, dtype) for i in range(3))
            for layer, x in enumerate((first, second, third)):
                by_address.add(layer, x)
                other.add(layer, layouts(x)[(layer + batch) % 3])
            by_address.end_batch(8)
            other.end_batch(8)
        assert torch.equal(by_address.estimate().value, other.estimate().value)

    def test_a_refused_batch_leaves_no_trace(self) -> None:
        accumulator, clean = self.make(), self.make()
        for a in (accumulator, clean):
            a.add(0, self.features(8, 0))
            a.end_batch(8)
        accumulator.add(0, self.features(8, 1) * torch.nan)
        with pytest.raises(NotFiniteError) as caught:
            accumulator.end_batch(8)
        assert caught.value.layers == [0]
        for a in (accumulator, clean):
            a.add(0, self.features(8, 2))
            a.end_batch(8)
        torch.testing.assert_close(accumulator.estimate(), clean.estimate())

    def test_layers_of_mixed_precision(self) -> None:
        accumulator = self.make()
        accumulator.add(0, self.features(8, 0))
        accumulator.add(1, self.features(8, 1, torch.float64))
        accumulator.add(2, self.features(8, 0, torch.bfloat16))
        accumulator.end_batch(8)
        value = accumulator.estimate().value
        torch.testing.assert_close(value.diagonal(), torch.ones(3, dtype=torch.float64))
        assert 0.99 < value[0, 2] < 1


def test_models_spread_over_devices_stay_where_they_are(images: Tensor) -> None:
    spread = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1, device="meta"))
    with pytest.raises(ValueError, match=r"cannot hold Sequential.*\['cpu', 'meta'\]"):
        compare([spread], images, device="cpu")
