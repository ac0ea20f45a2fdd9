"""Work beside the forward pass: the same similarities, however late that work is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.op_tester import devices
from repsim_fast.comparison import engine as _engine
from repsim_fast.comparison import side_stream as _side_stream
from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.side_stream import SideStream, side_stream
from repsim_fast.similarity.streaming.accumulator import CKAAccumulator


class LateStreams:
    """Does the work as late as streams may: when the forward pass waits for it."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, Callable[[], None]]] = deque()
        self.count = 0

    def beside(self, work: Callable[[], None]) -> int:
        self.count += 1
        self.queue.append((self.count, work))
        return self.count

    def wait(self, queued: int) -> None:
        while self.queue and self.queue[0][0] <= queued:
            self.queue.popleft()[1]()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> LateStreams:
    streams = LateStreams()
    monkeypatch.setattr(_engine, "side_stream", lambda _, measure: SideStream(measure, streams))
    return streams


def grid(models: list[nn.Module], images: Tensor, **options: object) -> Tensor:
    names = [str(number) for number in range(len(models))]
    return torch.as_tensor(compare(models, images, names=names, **options).value)  # type: ignore[arg-type]


def test_layers_in_place_are_read_before_they_change(
    monkeypatch: pytest.MonkeyPatch, net_a: nn.Module, net_b: nn.Module, images: Tensor
) -> None:
    plain = grid([net_a, net_b], images, batch_size=10)
    streams = LateStreams()
    monkeypatch.setattr(_engine, "side_stream", lambda _, measure: SideStream(measure, streams))
    assert torch.equal(grid([net_a, net_b], images, batch_size=10), plain)
    # Of 7 layers (all but Flatten) of both, two are overwritten by the ReLU after them; the first
    # of four batches goes in order.
    assert streams.count == 3 * 2 * 5
    assert not streams.queue


def test_without_the_first_batch_they_would_be_read_too_late(
    monkeypatch: pytest.MonkeyPatch, net_a: nn.Module, images: Tensor
) -> None:
    """That this can be seen at all."""
    plain = grid([net_a], images, batch_size=10)
    monkeypatch.setattr(
        _engine, "side_stream", lambda _, measure: SideStream(measure, LateStreams())
    )
    monkeypatch.setattr(
        SideStream, "start_batch", lambda self, _: vars(self).update(_in_order=False)
    )
    with pytest.raises(ValueError, match=r"'1' of model '0' was overwritten .* in batch 0"):
        grid([net_a], images, batch_size=10)
    end_pass = SideStream.end_pass
    monkeypatch.setattr(SideStream, "end_pass", lambda self: [end_pass(self)].clear())
    assert not torch.allclose(grid([net_a], images, batch_size=10), plain)


def test_batches_of_another_size_than_the_one_before_go_in_order(
    monkeypatch: pytest.MonkeyPatch, net_a: nn.Module, images: Tensor
) -> None:
    """They need other buffers."""
    options: dict[str, Any] = {"batch_size": 16, "passes": 2, "seed": 4}  # 16, 16, 8, 16, 16, 8
    plain = grid([net_a], images, **options)
    streams = LateStreams()
    monkeypatch.setattr(_engine, "side_stream", lambda _, measure: SideStream(measure, streams))
    assert torch.equal(grid([net_a], images, **options), plain)
    assert streams.count == 2 * 5


class Block(nn.Module):
    """Returns what its ReLU returned, changed in place from the second pass on if so wanted."""

    def __init__(self, change_later: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.change_later = change_later
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        x = self.relu(self.conv(x))
        return x.add_(1.0) if self.change_later and self.passes > 1 else x


def test_the_same_tensor_twice(late: LateStreams, images: Tensor) -> None:
    value = grid([Block()], images, layers=("conv", "relu", "(model)"), batch_size=10)
    assert late.count == 3 * 3
    assert value[1, 2] == pytest.approx(1.0, abs=1e-6)


def test_a_layer_overwritten_in_a_later_batch_only_is_an_error(
    late: LateStreams, images: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"'relu' of model '0' was overwritten .* in batch 1 but"):
        grid([Block(change_later=True)], images, layers=("conv", "relu"), batch_size=10)


class Failing(Block):
    """Raises in its second pass, after a layer whose work has been queued."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.passes > 1:
            raise RuntimeError("no more")
        return x


def test_after_an_exception_nothing_is_left_to_do(late: LateStreams, images: Tensor) -> None:
    with pytest.raises(RuntimeError, match="no more"):
        grid([Failing()], images, layers=("conv", "relu"), batch_size=10)
    assert late.count == 2
    assert not late.queue


def test_activations_of_inference_mode_have_no_version_and_go_in_order(
    late: LateStreams, images: Tensor
) -> None:
    class Inferring(Block):
        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                return super().forward(x)

    grid([Inferring()], images, layers=("conv", "relu"), batch_size=10)
    assert late.count == 0


def test_only_for_work_that_is_queued_on_one_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = CKAAccumulator(estimator="unbiased", precision=None, capacity=1)
    monkeypatch.setattr(_side_stream, "CudaStreams", lambda device: LateStreams())
    gpu, other = torch.device("cuda", 0), torch.device("cuda", 1)
    assert side_stream([gpu], measure) is None  # until it has been measured
    monkeypatch.setattr(_side_stream, "ENABLED", True)
    assert side_stream([gpu, gpu], measure) is not None
    assert side_stream([gpu, other], measure) is None
    assert side_stream([torch.device("cpu")], measure) is None


@pytest.mark.parametrize("device", devices())
def test_streams_of_a_device_change_nothing(
    device: str, monkeypatch: pytest.MonkeyPatch, net_a: nn.Module, net_b: nn.Module, images: Tensor
) -> None:
    models = [net_a.to(device), net_b.to(device)]
    many = torch.rand(800, *images.shape[1:], device=device)
    plain = grid(models, many, batch_size=100)
    monkeypatch.setattr(_side_stream, "ENABLED", True)
    assert torch.equal(grid(models, many, batch_size=100), plain)
