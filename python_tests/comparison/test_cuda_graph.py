"""Comparison by CUDA graph: what is captured, when, and that replays give what batches give."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.in_order import compare
from python_tests.support.op_tester import devices
from python_tests.support.replayed_graph import ReplayedGraph
from repsim_fast._core.cuda_graph import GraphedLoop
from repsim_fast.comparison import engine, inputs, replay
from repsim_fast.similarity import get_measure


class Replay(ReplayedGraph):
    """Leaves the engine as it was: what a graph replays is the GPU's work and no Python."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        passes = inspect.getclosurevars(self._loop).nonlocals["passes"]
        intake = inspect.getclosurevars(passes).nonlocals["self"]._intake
        before = dict(vars(intake))
        outputs = super().__call__(inputs)
        vars(intake).update(before)
        return outputs


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[Replay]:
    """Graphs on the CPU."""
    Replay.captured = Replay.replayed = 0
    monkeypatch.setattr(replay, "GraphedLoop", Replay)
    for module in (engine, inputs):
        monkeypatch.setattr(module, "device_of", lambda model: GPU)
    monkeypatch.setattr(engine, "aside", lambda *_: contextlib.nullcontext())
    for module in (inputs, replay):
        monkeypatch.setattr(module, "to_device", lambda x, device, copy=False: x)
    return Replay


GPU = torch.device("cuda")  # where models are said to be


def values(models: list[nn.Module], data: Any, **options: Any) -> Tensor:
    return torch.as_tensor(compare(models, data, names=["a", "b"][: len(models)], **options).value)


def test_replays_give_what_batches_give(
    graphs: type[Replay], net_a: nn.Module, net_b: nn.Module, images: Tensor
) -> None:
    models = [net_a, net_b]
    plain = values(models, images, batch_size=8)
    assert graphs.captured == 0
    assert torch.equal(values(models, images, batch_size=8, cuda_graph=True), plain)
    assert (graphs.captured, graphs.replayed) == (1, 4)  # of five batches the first goes alone


def test_rows_that_only_hooks_count(graphs: type[Replay], net_a: nn.Module, images: Tensor) -> None:
    options: dict[str, Any] = {"layers": ["0", "1"], "maps": "positions", "batch_size": 8}
    plain = values([net_a], images, **options)
    assert torch.equal(values([net_a], images, **options, cuda_graph=True), plain)
    assert graphs.replayed == 4


def test_a_batch_of_another_size_goes_alone_and_ends_the_graph(
    graphs: type[Replay], net_a: nn.Module, images: Tensor
) -> None:
    """Its Grams need other memory, and those after it new memory again."""
    options: dict[str, Any] = {"batch_size": 9, "passes": 2, "seed": 5}  # 9, 9, 9, 9, 4, twice
    plain = values([net_a], images, **options)
    assert torch.equal(values([net_a], images, **options, cuda_graph=True), plain)
    assert (graphs.captured, graphs.replayed) == (2, 6)


def test_other_strides_end_the_graph(
    graphs: type[Replay], net_a: nn.Module, images: Tensor
) -> None:
    last = images.contiguous(memory_format=torch.channels_last)
    batches = [(images[:20],), (images[20:],), (last[:20],), (last[20:],)]
    values([net_a], batches, cuda_graph=True)
    assert (graphs.captured, graphs.replayed) == (2, 2)


class ByName(nn.Module):
    """Takes its inputs by name; one of them is no tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor, shift: Tensor, scale: float) -> Any:
        return self.net(pixels * scale + shift[:, None, None, None])


@pytest.mark.parametrize(
    ("scales", "replayed"), [([2.0, 2.0, 2.0, 2.0], 3), ([2.0, 2.0, 3.0, 3.0], 2)]
)
def test_inputs_by_name(
    scales: list[float],
    replayed: int,
    graphs: type[Replay],
    net_a: nn.Module,
    images: Tensor,
) -> None:
    """A graph keeps what is no tensor as it was."""
    shift = torch.rand(len(images))
    batches = [
        {"pixels": images[i : i + 10], "shift": shift[i : i + 10], "scale": scale}
        for i, scale in zip(range(0, 40, 10), scales, strict=True)
    ]
    plain = values([ByName(net_a)], batches)
    assert torch.equal(values([ByName(net_a)], batches, cuda_graph=True), plain)
    assert graphs.replayed == replayed


def test_nan_in_a_replayed_batch_is_named(
    graphs: type[Replay], net_a: nn.Module, images: Tensor
) -> None:
    images[25] = torch.nan
    with pytest.raises(ValueError, match=r"layer '0' of model 'a' in batch 2 .* NaN") as caught:
        values([net_a], images, batch_size=10, cuda_graph=True)
    assert caught.value.partial_result.n_samples == 20  # type: ignore[attr-defined]


def test_a_model_that_cannot_be_captured_is_an_error(
    graphs: type[Replay], monkeypatch: pytest.MonkeyPatch, net_a: nn.Module, images: Tensor
) -> None:
    def refuse(loop: Any, inputs: Mapping[str, Tensor]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "GraphedLoop", refuse)
    with pytest.raises(RuntimeError, match="cuda_graph: the forward passes cannot be captured"):
        values([net_a], images, batch_size=10, cuda_graph=True)


def test_too_little_memory_for_a_graph_is_said_as_such(
    graphs: type[Replay], monkeypatch: pytest.MonkeyPatch, net_a: nn.Module, images: Tensor
) -> None:
    def fail(loop: Any, inputs: Mapping[str, Tensor]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(replay, "GraphedLoop", fail)
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory"):
        values([net_a], images, batch_size=10, cuda_graph=True)


def test_needs_a_gpu_cka_and_no_transforms(net_a: nn.Module, images: Tensor) -> None:
    with pytest.raises(RuntimeError, match="cuda_graph: expected all models on one GPU, got cpu"):
        compare([net_a], images, cuda_graph=True)
    assert not any(module._forward_hooks for module in net_a.modules())
    for measure in ("svcca", get_measure("svcca")):
        with pytest.raises(ValueError, match=r"cuda_graph: expected a measure from .* got svcca"):
            compare([net_a], images, cuda_graph=True, measure=measure)
    with pytest.raises(ValueError, match="cuda_graph: expected no inputs="):
        compare([net_a], images, cuda_graph=True, inputs=lambda x, y: x)


@pytest.mark.parametrize("device", devices()[1:])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_on_a_gpu(
    autocast: torch.dtype | None,
    device: str,
    net_a: nn.Module,
    net_b: nn.Module,
) -> None:
    models = [net_a.to(device), net_b.to(device)]
    images = torch.rand(840, 3, 8, 8, device=device)
    plain = values(models, images, batch_size=100, autocast=autocast)
    graphed = values(models, images, batch_size=100, autocast=autocast, cuda_graph=True)
    # Not the same bits: a captured convolution may run by another algorithm.
    torch.testing.assert_close(graphed, plain, atol=1e-3, rtol=0)


class Waiting(nn.Module):
    """Cannot be captured: it waits for the GPU."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x * float(x.mean() > -1))


@pytest.mark.parametrize("device", devices()[1:])
def test_after_a_refused_capture_all_is_as_before(device: str, net_a: nn.Module) -> None:
    images = torch.rand(300, 3, 8, 8, device=device)
    stream = torch.cuda.current_stream()
    with pytest.raises(RuntimeError, match="cuda_graph: the forward passes cannot be captured"):
        values([Waiting(net_a).to(device)], images, batch_size=100, cuda_graph=True)
    assert torch.cuda.current_stream() == stream
    plain = values([net_a], images, batch_size=100)
    graphed = values([net_a], images, batch_size=100, cuda_graph=True)
    torch.testing.assert_close(graphed, plain, atol=1e-3, rtol=0)


@pytest.mark.parametrize("refused", [False, True])
def test_the_stream_comes_back_also_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """On its own device, and while that is the current one."""
    calls: list[str] = []

    @contextlib.contextmanager
    def noted(name: str) -> Iterator[None]:
        calls.append(name)
        yield
        calls.append(f"end of {name}")

    def capture(graph: object, **options: object) -> AbstractContextManager[None]:
        assert options == {"pool": None, "stream": side, "capture_error_mode": "thread_local"}
        if refused:
            raise RuntimeError("operation not permitted when stream is capturing")
        return noted("capture")

    main, side = Mock(), Mock()
    monkeypatch.setattr(torch.cuda, "device", lambda device: noted("device"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: side)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: noted("side"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Mock)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: calls.append(f"{stream is main}"))
    expected = ["device", "side", "end of side"]
    if refused:
        with pytest.raises(RuntimeError, match="not permitted"):
            GraphedLoop(lambda held: (held["x"],), {"x": torch.zeros(2)})
        assert calls == [*expected, "True"]
    else:
        GraphedLoop(lambda held: (held["x"],), {"x": torch.zeros(2)})
        assert calls == [*expected, "capture", "end of capture", "True", "end of device"]
    side.wait_stream.assert_called_once_with(main)
    main.wait_stream.assert_called_once_with(side)


def test_graphs_beside_another_share_its_memory_and_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools: list[object] = []

    def capture(graph: object, pool: object, **options: object) -> AbstractContextManager[None]:
        pools.append(pool)
        return contextlib.nullcontext()

    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    for name in ("current_stream", "Stream", "CUDAGraph", "Event"):
        monkeypatch.setattr(torch.cuda, name, Mock(side_effect=Mock))
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    inputs = {"x": torch.arange(3.0)}
    first = GraphedLoop(lambda held: (held["x"] + 1,), inputs)
    second = GraphedLoop(lambda held: (held["x"] + 2,), inputs, beside=first)
    alone = GraphedLoop(lambda held: (held["x"],), inputs)
    assert pools == [None, first._graph.pool(), None]
    assert second._done is first._done
    assert alone._done is not first._done
    (result,) = second(inputs)
    assert torch.equal(result, torch.tensor([2.0, 3.0, 4.0]))
    # Waits before its inputs are overwritten, and lets others start after its results are copied.
    assert [name for name, *_ in first._done.mock_calls] == ["wait", "record"]


def test_a_replay_is_on_the_streams_of_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is current for the caller: an event cannot be recorded on two."""
    current: list[object] = []
    seen: list[object] = []

    @contextlib.contextmanager
    def on(device: object) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def look() -> None:
        seen.append(current[-1] if current else None)

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "Event", lambda: Mock(wait=look, record=look))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Mock(replay=look))
    monkeypatch.setattr(GraphedLoop, "_capture", _captured_at_once)
    GraphedLoop(lambda held: (held["x"],), {"x": torch.zeros(2)})({"x": torch.ones(2)})
    assert seen == [torch.device("cpu")] * 3


def _captured_at_once(graphed: Any, loop: Any) -> None:
    graphed._graph, graphed.outputs = torch.cuda.CUDAGraph(), loop(graphed._inputs)
