"""What is left of a network: weights, multiply-adds, bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from repsim_fast._core.borrow import borrow, model_dtype
from repsim_fast._core.model_state import device_of, eager, unwrap

from .dense import apply
from .layers import TRANSPOSED, check_values, linear_maps, weight_of

# Of a place in a list of kept weights: int32.
_INDEX_BYTES = 4


@dataclass(frozen=True)
class LayerReport:
    """One layer's weight.

    Attributes:
        name: Of the layer.
        weights: Number of weights.
        kept: Of them, those that are not 0.
        positions: Where an image applies the weight, such as the pixels of a convolution's output,
            of a transposed one's input; None without images.
        itemsize: Bytes of a weight.
        shares: Name of the layer before it whose weight it has; None for its own.
    """

    name: str
    weights: int
    kept: int
    positions: int | None
    itemsize: int
    shares: str | None = None

    @property
    def sparsity(self) -> float:
        """Share that is 0."""
        return 1 - self.kept / self.weights

    @property
    def dense_multiply_adds(self) -> int | None:
        """Of an image, with all weights."""
        return None if self.positions is None else self.weights * self.positions

    @property
    def multiply_adds(self) -> int | None:
        """Of an image, with the kept weights."""
        return None if self.positions is None else self.kept * self.positions

    @property
    def dense_bytes(self) -> int:
        """Of all weights."""
        return self.weights * self.itemsize

    @property
    def compressed_bytes(self) -> int:
        """Of the smallest form: all weights; the kept ones and a bit for each; they with int32."""
        values = self.kept * self.itemsize
        bits = (self.weights + 7) // 8
        return min(self.dense_bytes, values + bits, values + self.kept * _INDEX_BYTES)


@dataclass(frozen=True)
class Report:
    """The layers of a network and their sums, in which a weight that several share counts once.

    Attributes:
        layers: Linear and convolutional layers, in their order.
        other_bytes: Of everything else in the state dict, biases and norms, which stays dense.
    """

    layers: tuple[LayerReport, ...]
    other_bytes: int

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self._stored)

    @property
    def kept(self) -> int:
        """Those that are not 0."""
        return sum(layer.kept for layer in self._stored)

    @property
    def sparsity(self) -> float:
        """Share of all layers' weights that is 0."""
        return 1 - self.kept / self.weights

    @property
    def dense_multiply_adds(self) -> int | None:
        """Of an image in all layers, with all weights; None without images."""
        return _sum([layer.dense_multiply_adds for layer in self.layers])

    @property
    def multiply_adds(self) -> int | None:
        """Of an image in all layers, with the kept weights; None without images."""
        return _sum([layer.multiply_adds for layer in self.layers])

    @property
    def dense_bytes(self) -> int:
        """Of the ordinary state dict, a tensor of two names counted once."""
        return sum(layer.dense_bytes for layer in self._stored) + self.other_bytes

    @property
    def compressed_bytes(self) -> int:
        """Of the state dict with each layer's weight in its smallest form."""
        return sum(layer.compressed_bytes for layer in self._stored) + self.other_bytes

    @property
    def _stored(self) -> list[LayerReport]:
        return [layer for layer in self.layers if layer.shares is None]


@torch.no_grad()
def report(model: nn.Module, images: Tensor | None = None) -> Report:
    """Sparsity by layer, multiply-adds and bytes in compressed form, of any model, masked or not.

    A convolution's multiply-adds are those of its whole kernel at every place of its output (a
    transposed one's: of its input), also where it overlaps the padding. Other weights, such as
    those of recurrent layers, embeddings and the input projections of attention, are neither pruned
    nor among the layers.

    Args:
        model: Comes back as it was.
        images: Like those to come, (n, C, H, W), or whatever tensor of n samples the model takes,
            on which multiply-adds are counted; default: they are not.

    Returns:
        A report with a line a layer; a layer whose weight is not used has 0 positions.

    Raises:
        TypeError: No module, or images that are no tensor.
        ValueError: No linear or convolutional layer, one that has no weight yet, or no image.

    Example:
        >>> import torch
        >>> from repsim_fast import pruning
        >>> network = torch.nn.Linear(64, 10)
        >>> pruning.prune(network, 0.9)
        >>> found = pruning.report(network, torch.rand(1, 64))
        >>> found.kept, found.multiply_adds, found.compressed_bytes, found.dense_bytes
        (64, 64, 376, 2600)
    """
    layers = linear_maps(model)
    if not layers:
        raise ValueError("model: expected a linear or convolutional layer, got none")
    for name, layer in layers.items():
        check_values(name, layer)
    positions = {} if images is None else _positions(model, layers, images)
    lines: list[LayerReport] = []
    owners: dict[int, str] = {}  # a masked weight has one: it is made anew at each look
    for name, layer in layers.items():
        weight = weight_of(layer)
        kept = int(weight.count_nonzero())
        at = None if images is None else positions[name]
        owner = owners.setdefault(id(layer._parameters.get("weight", layer)), name)
        shares = None if owner == name else owner
        lines.append(LayerReport(name, weight.numel(), kept, at, weight.element_size(), shares))
    found = Report(tuple(lines), 0)
    return replace(found, other_bytes=_stored_bytes(model) - found.dense_bytes)


def _stored_bytes(model: nn.Module) -> int:
    """Of the ordinary state dict, in which tensors and modules of two names are there for each."""
    held = unwrap(model).state_dict()
    first = {name for name, _ in unwrap(model).named_modules()}
    sizes = {}
    for key, value in apply(model).items():
        if key.rpartition(".")[0] in first:
            own = held.get(key)
            there = key if own is None else (own.data_ptr() or key, own.dtype, own.shape)
            sizes[there] = value.nbytes
    return sum(sizes.values())


def _positions(model: nn.Module, layers: dict[str, nn.Module], images: Tensor) -> dict[str, int]:
    """Of one image, all its calls of a layer together."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor, got {type(images).__name__}")
    if images.ndim < 1 or len(images) < 1:
        raise ValueError(f"images: expected one at least, got shape {tuple(images.shape)}")
    device = device_of(model)
    tokens = images.dtype in (torch.int32, torch.int64)
    x = images.to(device, images.dtype if tokens else model_dtype(model, images.dtype), copy=True)
    with (
        borrow(model, device=device, seed=0),
        eager(),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),  # which would copy weights
        parametrize.cached(),  # a masked weight is the same at each look
        _called(layers) as called,
        _Uncalled({weight_of(m).data_ptr(): name for name, m in layers.items()}) as uncalled,
    ):
        model(x)
    products = {name: called[name] or uncalled.products[name] for name in layers}
    return {name: products[name] // weight_of(m).numel() // len(x) for name, m in layers.items()}


@contextlib.contextmanager
def _called(layers: dict[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Multiply-adds of the layers' calls so far, with all weights."""
    products = dict.fromkeys(layers, 0)

    def counts(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def count(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # Each place that a weight's first dimension is about takes part with all the others.
            places = args[0] if isinstance(layer, TRANSPOSED) else output
            products[name] += places.numel() * weight_of(layer)[0].numel()

        return count

    hooks = [layer.register_forward_hook(counts(name)) for name, layer in layers.items()]
    try:
        yield products
    finally:
        for hook in hooks:
            hook.remove()


class _Uncalled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Multiply-adds with weights that a model uses itself, without a call of their layers.

    So do ``nn.MultiheadAttention`` with its output projection, and torchvision's Swin.

    Args:
        names: Of layers, by where their weights lie in memory.
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = names
        self.products = dict.fromkeys(names.values(), 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
            for place in {x.data_ptr() for x in tensors} & self.names.keys():
                self.products[self.names[place]] += count(*args, **kwargs, out_val=out) // 2
        return out


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
