"""Memory formats of compared models: where they change, with the same values, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast import SimilarityResult, compare, record
from repsim_fast._core import memory_format
from repsim_fast.comparison import layouts
from repsim_fast.comparison.inputs import BatchInputs
from repsim_fast.comparison.plan import Run
from repsim_fast.data.batches import open_data
from repsim_fast.data.share import Share

Read = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """Two convolutions and a classifier; notes whether images come with channels last."""

    def __init__(self, read: Read = lambda maps: maps.flatten(1), seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.last = nn.Conv2d(8, 4, 3, padding=1)
        self.read, self.rows = read, nn.Identity()
        self.linear = nn.Linear(4, 5)
        self.seen: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:  # not where formats are tried
            self.seen.add(x.is_contiguous(memory_format=torch.channels_last))
        maps = self.last(self.act(self.conv(x)))
        self.rows(self.read(maps))
        logits: Tensor = self.linear(maps.mean((2, 3)))
        return logits


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _known_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_format, "_is_faster", lambda *_: True)
    monkeypatch.setattr(layouts, "FEWEST_PIXELS", 0)
    monkeypatch.setattr(layouts, "FEWEST_IMAGES", 0)


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimilarityResult]]:
    """`compare` of models that keep their memory format."""

    def compared(*given: Any, **options: Any) -> SimilarityResult:
        with monkeypatch.context() as patch:
            patch.setattr(memory_format, "_is_faster", lambda *_: False)
            return compare(*given, **options)

    return compared


def close(one: SimilarityResult, other: SimilarityResult) -> None:
    assert one.layers == other.layers
    np.testing.assert_allclose(one.value, other.value, atol=1e-5)
    np.testing.assert_allclose(one.standard_error, other.standard_error, atol=1e-5)


@pytest.mark.parametrize("measure", ["cka", "cca", "procrustes_similarity"])
def test_the_same_values_and_the_model_as_it_was(
    batch: Tensor, as_they_are: Callable[..., SimilarityResult], measure: str
) -> None:
    net = Net()
    before = [(p.data_ptr(), p.stride(), p.detach().clone()) for p in net.parameters()]
    options: dict[str, Any] = {"batch_size": 8, "measure": measure, "layers": ["act", "last"]}
    if measure == "cca":
        options["maps"] = "pool"
    expected = as_they_are([net], batch, **options)
    assert net.seen == {False}
    net.seen.clear()
    found = compare([net], batch, **options)
    assert net.seen == {True}
    assert found.layers == expected.layers
    np.testing.assert_allclose(found.value, expected.value, atol=1e-4)
    for parameter, (place, stride, value) in zip(net.parameters(), before, strict=True):
        assert (parameter.data_ptr(), parameter.stride()) == (place, stride)
        assert torch.equal(parameter, value)


@pytest.mark.parametrize(
    "read",
    [
        lambda maps: maps.view(len(maps), -1),  # raises
        # Other values, which the logits do not show.
        lambda maps: maps.as_strided((len(maps), 256), (256, 1)),
    ],
)
def test_a_layer_that_needs_the_model_as_it_is(
    batch: Tensor, as_they_are: Callable[..., SimilarityResult], read: Read
) -> None:
    net = Net(read)
    options: dict[str, Any] = {"batch_size": 8, "layers": ["conv", "rows"]}
    found = compare([net], batch, **options)
    assert net.seen == {False}
    np.testing.assert_array_equal(found.value, as_they_are([net], batch, **options).value)


def test_what_others_see_stays(batch: Tensor) -> None:
    def cubed(x: Tensor, y: Tensor | None) -> Tensor:
        return x.pow(3)

    def run(model: nn.Module, x: Any) -> Tensor:
        found: Tensor = model(x)
        return found

    one, other, again = Net(), Net(seed=1), Net(seed=2)
    again.conv = other.conv
    compare([one, Net(seed=3)], batch, batch_size=8, inputs=[None, cubed])
    compare([one], batch, batch_size=8, forward=run)
    compare([other, again], batch, batch_size=8)
    compare([one], batch, batch_size=8, layers=["conv"], maps=lambda x: x.view(len(x), -1))
    assert one.seen == other.seen == again.seen == {False}
    compare([one, other], batch, batch_size=8)
    assert one.seen == other.seen == {False, True}


def test_all_layers_of_a_model_that_is_run_twice_are_looked_at(batch: Tensor) -> None:
    net = Net(lambda maps: maps.as_strided((len(maps), 256), (256, 1)))
    compare({"a": net, "b": net}, batch, layers={"a": ["conv"], "b": ["rows"]}, batch_size=8)
    assert net.seen == {False}


@pytest.mark.parametrize("shape", [lambda x: {"x": x}, lambda x: (x,), lambda x: [x]])
def test_images_within_what_a_model_takes(
    batch: Tensor, as_they_are: Callable[..., SimilarityResult], shape: Callable[[Tensor], Any]
) -> None:
    net = Net()
    data = [shape(part) for part in batch.split(8)]
    expected = as_they_are([net], data)
    close(compare([net], data), expected)
    assert net.seen == {False, True}


def test_random_models_draw_as_they_did(
    batch: Tensor, as_they_are: Callable[..., SimilarityResult]
) -> None:
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.1 * torch.rand(len(x), 3, 8, 8))

    net = Noisy()
    close(compare([net], batch, batch_size=8), as_they_are([net], batch, batch_size=8))


def test_back_after_an_exception(batch: Tensor) -> None:
    class Fails(Net):
        def forward(self, x: Tensor) -> Tensor:
            if x.max() > 4:
                tried.append(self.conv.weight.stride())
                raise RuntimeError("gone")
            return super().forward(x)

    net = Fails()
    tried: list[tuple[int, ...]] = []
    stride = net.conv.weight.stride()
    batch[10] = 5  # in the second batch
    with pytest.raises(RuntimeError, match="gone"):
        compare([net], batch, batch_size=8, shuffle=False)
    assert [one == stride for one in tried] == [False, True], "once more as it was"
    assert net.conv.weight.stride() == stride


@pytest.mark.parametrize(
    ("images", "pixels", "known", "last"),
    [
        (24, 24 * 64, True, True),
        (25, 0, True, False),
        (0, 24 * 64 + 1, True, False),
        (8, 8 * 64, False, True),
        (9, 0, False, False),
    ],
)
def test_few_images(
    batch: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    pixels: int,
    known: bool,
    last: bool,
) -> None:
    monkeypatch.setattr(layouts, "FEWEST_IMAGES", images)
    monkeypatch.setattr(layouts, "FEWEST_PIXELS", pixels)
    net = Net()
    compare([net], batch if known else iter(batch.split(8)), batch_size=8 if known else None)
    assert net.seen == {last}


@pytest.mark.parametrize(
    ("capability", "many", "small", "enough", "half", "last"),
    [
        ("AVX512", True, True, True, False, False),
        ("AVX512", True, True, True, True, True),
        ("AVX512", True, True, False, True, False),
        ("AVX512", True, False, False, False, True),
        ("AVX512", False, True, False, False, True),
        ("AVX2", True, True, False, False, True),
    ],
)
def test_many_weights_on_small_maps(
    batch: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    many: bool,
    small: bool,
    enough: bool,
    half: bool,
    last: bool,
) -> None:
    net, pixels = Net(), 64
    weights = net.conv.weight.numel() + net.last.weight.numel()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(layouts, "MANY_WEIGHTS", weights if many else weights + 1)
    monkeypatch.setattr(layouts, "SMALL_PIXELS", pixels if small else pixels - 1)
    monkeypatch.setattr(layouts, "FEWEST_PIXELS_OF_SMALL", 24 * pixels + (0 if enough else 1))
    options: dict[str, Any] = {"autocast": torch.bfloat16} if half else {}
    compare([net], batch, batch_size=8, **options)
    assert net.seen == {last}


def test_recordings(batch: Tensor, tmp_path: Path) -> None:
    nets = [Net(seed=seed) for seed in range(2)]
    one = record(nets[0], batch, tmp_path / "a", batch_size=8)
    assert nets[0].seen == {True}
    found = compare([one, nets[1]], batch, batch_size=8, names=["a", "b"])
    expected = compare(nets, batch, batch_size=8, names=["a", "b"])
    np.testing.assert_array_equal(found.value, expected.value)


class OfSomeSizes(Net):
    """Does not take channels last of more than four images, or of smaller ones."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 4 or x.shape[-1] < 8:
            nn.functional.conv2d(x, self.conv.weight).view(len(x), -1)
        return super().forward(x)


@pytest.mark.parametrize("measure", ["cka", "procrustes_similarity"])
def test_a_model_that_takes_some_sizes_only_goes_on_as_it_is(
    batch: Tensor, as_they_are: Callable[..., SimilarityResult], measure: str
) -> None:
    net, other = OfSomeSizes(), Net(seed=1)
    before = [(p.data_ptr(), p.stride()) for p in net.parameters()]
    data = [batch[:4], batch[4:8], batch[8:16], batch[16:]]
    options: dict[str, Any] = {"measure": measure, "layers": ["conv", "act", "last"]}
    found = compare([net, other], data, **options)
    assert [(p.data_ptr(), p.stride()) for p in net.parameters()] == before
    assert net.seen == {False, True}
    assert other.seen == {True}
    close(found, as_they_are([net, other], data, **options))


def test_smaller_images_later(batch: Tensor) -> None:
    net = OfSomeSizes()
    data = [batch[:4], batch[4:8, :, 1:7, 1:7], batch[8:12]]
    assert compare([net], data, layers=["conv", "act"]).n_batches == 3
    assert net.seen == {False, True}


def test_an_error_of_the_model_itself_is_said(batch: Tensor) -> None:
    net = Net(lambda maps: maps if len(maps) < 5 else maps.view(-1, 7))
    with pytest.raises(RuntimeError, match=r"model 'Net' failed in batch 1 .*\[-1, 7\]"):
        compare([net], [batch[:4], batch[4:]], layers=["conv"])


def test_every_process_decides_alike(batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the samples of all, not by its own."""
    monkeypatch.setattr(layouts, "FEWEST_IMAGES", 24)
    for rank, size in ((0, 1), (0, 2), (1, 2), (2, 3)):
        net = Net()
        found = open_data(batch, models=["net"], batch_size=5, share=Share(rank, size))
        assert found.n_of_all == 5
        runs = [Run(net, "net", ["conv"], None, ("conv",))]
        kept = layouts.Layouts(
            runs, calls="all", autocast=None, n_batches=found.n_of_all, batch_size=found.batch_size
        )
        with kept:
            kept.settle(BatchInputs(next(iter(found.batches))))
            assert kept.give_up(runs[0])
