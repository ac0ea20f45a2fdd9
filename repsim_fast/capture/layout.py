"""Where the channels are in what a layer returns: (N, C, H, W) or (N, H, W, C), (N, C, L) or
(N, T, D)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias
from weakref import ref

import torch
from torch import Tensor, nn

from repsim_fast.capture.features import Channels, first_tensor

ChannelsOf: TypeAlias = "Channels | Callable[[str, nn.Module, Tensor], Channels | None] | None"
"""Channels of all layers, or of one by its name, module and output; None: find out."""

# Files of torch.nn.modules by the side on which their layers have the channels.
_MAPS = ("conv", "batchnorm", "instancenorm", "pooling", "upsampling", "padding")
_FIRST = (*_MAPS, "pixelshuffle", "channelshuffle")
_LAST = ("linear", "rnn", "transformer", "sparse")
_ELEMENTWISE = ("activation", "dropout")


class _Known(NamedTuple):
    """An output whose channels are known: of so many, at so many numbers' distance in memory."""

    channels: Channels
    width: int
    positions: tuple[int, ...] | None  # sizes of the dimensions beside samples and channels
    shape: torch.Size | None


class _Running(NamedTuple):
    """A module whose forward pass has begun: after how many outputs, on what input."""

    start: int
    source: _Known | None


class Layouts:
    """Watches passes of a model, and tells of what its layers return where the channels are.

    The layer that returned a tensor decides: torch's own layers have a convention, others the side
    that has as many entries as they have channels. What only passes a tensor on (activations,
    dropout, residual sums, permutations) goes by the latest layer before or inside of it: the same
    memory, the same numbers of positions and of channels, in this order.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._order: list[_Known] = []  # of this pass
        self._running: list[_Running] = []  # modules, the innermost last
        self._tensors: dict[int, tuple[ref[Tensor], _Known]] = {}
        # Size and stride of the channels in memory that several tensors may be views of.
        self._memories: dict[int, tuple[ref[Tensor], int, int]] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module inside."""
        with contextlib.ExitStack() as hooks:
            modules = [
                m for m in self._model.modules() if not isinstance(m, torch.jit.ScriptModule)
            ]
            for module in modules:
                before = module.register_forward_pre_hook(self._before, with_kwargs=True)
                hooks.callback(before.remove)
                hooks.callback(module.register_forward_hook(self._after).remove)
            try:
                yield
            finally:
                self._forget()

    def of(self, x: Tensor) -> Channels | None:
        """Side of the channels of what a layer has just returned; None where nothing tells."""
        known = self._known(x)
        if known is not None:
            return known.channels
        return self._by_memory(x) or _like(self._around(), x)

    def _forget(self) -> None:
        self._order, self._running = [], []
        self._tensors, self._memories = {}, {}

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is self._model:
            self._forget()  # also what a pass left that raised
        source = self._known(first_tensor((*args, *kwargs.values())))
        self._running.append(_Running(len(self._order), source))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        start, source = self._running.pop() if self._running else _Running(0, None)
        x = first_tensor(output)
        if x is None or x.ndim < 2 or self._known(x) is not None:
            return
        channels = "last" if x.ndim == 2 else self._decide(module, x, source, start)
        if channels is not None:
            self._remember(x, channels)

    def _decide(
        self, module: nn.Module, x: Tensor, source: _Known | None, start: int
    ) -> Channels | None:
        convention, certain = _convention(module)
        if certain:
            return convention
        if (by_memory := self._by_memory(x)) is not None:
            return by_memory
        if _is_elementwise(module):
            return _like([source] if source else self._around(), x)
        inside = self._order[start:][::-1]
        own = _own_count(module)
        candidates = [None if own is None else _Known("last", own, None, None), *inside, source]
        return _like(candidates, x) or convention

    def _around(self) -> list[_Known | None]:
        """The latest output, and inputs of the modules that are running, the innermost first."""
        return [*self._order[-1:], *(running.source for running in self._running[::-1])]

    def _known(self, x: Tensor | None) -> _Known | None:
        tensor, known = self._tensors.get(id(x), (None, None))
        return known if tensor is not None and tensor() is x else None

    def _remember(self, x: Tensor, channels: Channels) -> None:
        axis = 1 if channels == "first" else x.ndim - 1
        positions = tuple(size for i, size in enumerate(x.shape) if i not in (0, axis))
        known = _Known(channels, x.shape[axis], positions, x.shape)
        self._order.append(known)
        self._tensors[id(x)] = ref(x), known
        memory = x if x._base is None else x._base
        self._memories[id(memory)] = ref(memory), x.shape[axis], x.stride(axis)

    def _by_memory(self, x: Tensor) -> Channels | None:
        """Channels of a view of what a layer returned, such as a permutation."""
        memory = x if x._base is None else x._base
        tensor, size, stride = self._memories.get(id(memory), (None, 0, 0))
        if tensor is None or tensor() is not memory:
            return None
        axes = [i for i in range(1, x.ndim) if (x.shape[i], x.stride(i)) == (size, stride)]
        if axes == [1]:
            return "first"
        return "last" if axes == [x.ndim - 1] else None


def _convention(module: nn.Module) -> tuple[Channels | None, bool]:
    """Side of the channels that torch's layers have, and whether this one has torch's forward."""
    torchs = _torch_class(module)
    file = torchs.__module__.rpartition(".")[2]
    if isinstance(module, (nn.GroupNorm, nn.LocalResponseNorm)) or file in _FIRST:
        convention: Channels | None = "first"
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        convention = "last" if len(module.normalized_shape) == 1 else None
    elif isinstance(module, nn.MultiheadAttention) or (file in _LAST and torchs is not nn.Identity):
        convention = "last"
    else:
        convention = None
    own_forward = "forward" in vars(module) or type(module).forward is not torchs.forward
    return convention, convention is not None and not own_forward


def _torch_class(module: nn.Module) -> type[nn.Module]:
    """The nearest of torch's classes that a module's class comes from."""
    return next(c for c in type(module).__mro__ if c.__module__.startswith("torch.nn.modules."))


def _is_elementwise(module: nn.Module) -> bool:
    torchs = _torch_class(module)
    return torchs is nn.Identity or torchs.__module__.rpartition(".")[2] in _ELEMENTWISE


def _own_count(module: nn.Module) -> int | None:
    """Channels that a layer without others inside returns, by its options or its weights."""
    if next(module.children(), None) is not None and _torch_class(module) is nn.Module:
        return None
    for name in ("out_channels", "out_features", "num_features", "num_channels", "embedding_dim"):
        if isinstance(count := getattr(module, name, None), int):
            return count
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return module.normalized_shape[0] if len(module.normalized_shape) == 1 else None
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    sizes = {tensor.numel() for tensor in tensors if tensor.numel() == max(tensor.shape, default=0)}
    return sizes.pop() if len(sizes) == 1 else None


def _like(candidates: Sequence[_Known | None], x: Tensor) -> Channels | None:
    """Side of the channels of x by the first output known that x is more like on one side.

    As many positions as there weigh more than as many channels: a concatenation has other channels
    at the same positions. Where both sides fit alike, the side stays what it was.
    """
    tied: Channels | None = None
    for known in candidates:
        if known is None:
            continue
        first = _likeness(known, x.shape[1], x.shape[2:])
        last = _likeness(known, x.shape[-1], x.shape[1:-1])
        if first != last:
            return "first" if first > last else "last"
        if known.shape == x.shape:
            return known.channels
        if tied is None and first > 0 and known.shape is not None:
            tied = known.channels
    return tied


def _likeness(known: _Known, count: int, positions: Sequence[int]) -> int:
    return (count == known.width) + 2 * (tuple(positions) == known.positions)
