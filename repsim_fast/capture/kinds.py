"""What kind of layer a module is, and which modules are only parts of a layer."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from types import ModuleType

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules that hold others and compute nothing of their own."""


def _classes(module: ModuleType, *, without: tuple[type, ...] = ()) -> tuple[type, ...]:
    """Layer classes that a ``torch.nn.modules`` file defines."""
    return tuple(
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and value.__module__ == module.__name__
        and value not in without
    )


_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("attention", (nn.MultiheadAttention,)),
    ("recurrent", (nn.RNNBase, nn.RNNCellBase)),
    ("conv", _classes(nn.modules.conv)),
    (
        "norm",
        _classes(nn.modules.batchnorm)
        + _classes(nn.modules.instancenorm)
        + _classes(nn.modules.normalization),
    ),
    ("activation", _classes(nn.modules.activation, without=(nn.MultiheadAttention,))),
    ("pooling", _classes(nn.modules.pooling)),
    ("linear", _classes(nn.modules.linear, without=(nn.Identity,))),
)

# Layers that libraries and users write themselves, known by the words in their class names.
_CONTAINER_WORDS = (
    ("attention", re.compile("Attention|Attn")),
    ("block", re.compile("Block|Bottleneck|Residual|Layer")),
)
_LEAF_WORDS = (
    ("attention", re.compile("Attention|Attn")),
    ("norm", re.compile("Norm")),
    ("conv", re.compile("Conv")),
    ("pooling", re.compile("Pool")),
    ("linear", re.compile("Linear")),
    ("activation", re.compile("ReLU|GELU|ELU|GLU|SiLU|Swish|Mish|Sigmoid|Tanh|Activation")),
)
_COMBINED_WORDS = (  # at the end: a ConvEncoder is a network
    ("conv", re.compile(r"Conv(olution)?(\dd)?$")),
    ("linear", re.compile("Linear$")),
)
_QUANTIZED_WORDS = (("recurrent", re.compile("LSTM|GRU|RNN")), *_LEAF_WORDS)

_PROJECTIONS = ("linear", "conv")
"""Kinds of the layers that others are made of: by adapters, quantisation, message passing."""


def layer_kind(module: nn.Module) -> str | None:
    """Kind of a layer, or None for a module that the default selection leaves out.

    The rule: a subclass of one of torch's own convolution, normalisation, activation, pooling,
    linear, recurrent or attention classes is of that kind. Any other class goes by its name. With
    submodules: "attention" if the name says Attention or Attn, "block" if it says Block,
    Bottleneck, Residual or Layer. Without: the kind whose word the name contains
    (``FrozenBatchNorm2d`` is a "norm"), also of torch's quantised layers.
    Containers, dropout, identity, flatten and embedding are of no kind.

    A module that combines projections in a way of its own is "linear" or "conv" as a whole, and
    they are its parts, see :func:`parts`: one whose name ends in Linear or Conv with nothing but
    equal projections inside (``GCNConv`` with its ``lin``), and one with a projection beside a
    chain of two of lower rank between the same numbers of features, declared in this order and the
    first one without a bias, as low-rank adapters are and narrow networks are not.
    """
    for kind, classes in _KINDS:
        if isinstance(module, classes):
            return kind
    name = type(module).__name__
    if isinstance(module, CONTAINERS) or "PackedParam" in name:
        return None
    if type(module).__module__.startswith("torch.ao.nn."):
        return _by_name(name, _QUANTIZED_WORDS)
    if next(module.children(), None) is None:
        return _by_name(name, _LEAF_WORDS)
    return _by_name(name, _CONTAINER_WORDS) or _kind_of_combined(module)


def parts(module: nn.Module, *, is_network: bool = False) -> list[nn.Module]:
    """The projections inside a linear or convolutional layer, which contribute to its output.

    Nothing but that output is used by the network: the default selection leaves them out. A network
    itself may be called DeepLinear or TextConv without being one layer.
    """
    if next(module.children(), None) is None or layer_kind(module) not in _PROJECTIONS:
        return []
    found = [layer for layer in _inner(module) if layer_kind(layer) in _PROJECTIONS]
    by_class = any(isinstance(module, classes) for _, classes in _KINDS)
    if is_network and not by_class and _with_low_rank_beside(found) is None:
        return []
    return found


def has_unknown_weights(module: nn.Module) -> bool:
    """Whether a module without submodules has matrices of weights, but no kind.

    Tables of embeddings and of relative positions have a row for each token or distance and no
    features to multiply.
    """
    if isinstance(module, CONTAINERS) or re.search("Embed|Bias", type(module).__name__):
        return False
    return (
        next(module.children(), None) is None
        and layer_kind(module) is None
        and any(sum(size > 1 for size in w.shape) >= 2 for w in module.parameters(recurse=False))
    )


def _by_name(name: str, words: Sequence[tuple[str, re.Pattern[str]]]) -> str | None:
    return next((kind for kind, pattern in words if pattern.search(name)), None)


def _kind_of_combined(module: nn.Module) -> str | None:
    """Kind of a module that combines the projections inside it, or None."""
    inner = list(_inner(module))
    kinds = [layer_kind(layer) for layer in inner]
    projections = [m for m, kind in zip(inner, kinds, strict=True) if kind in _PROJECTIONS]
    others = [m for m, kind in zip(inner, kinds, strict=True) if kind not in _PROJECTIONS]
    if not projections or any(_does_more(layer) for layer in others):
        return None
    kind = _by_name(type(module).__name__, _COMBINED_WORDS)
    if kind is not None and len({_make(layer) for layer in projections}) == 1:
        return kind
    base = _with_low_rank_beside(projections)
    return None if base is None else layer_kind(base)


def _does_more(module: nn.Module) -> bool:
    """Whether a module is a layer of its own right, and not dropout or a scale, say."""
    return layer_kind(module) is not None or next(module.children(), None) is not None


def _inner(module: nn.Module) -> Iterator[nn.Module]:
    """Modules directly inside, also those in containers there."""
    for child in module.children():
        if isinstance(child, CONTAINERS):
            yield from _inner(child)
        else:
            yield child


def _make(layer: nn.Module) -> tuple[object, ...]:
    """What tells projections of one make from others."""
    options = (getattr(layer, name, None) for name in ("kernel_size", "groups"))
    return type(layer), *widths(layer), *options


def widths(layer: nn.Module) -> tuple[object, object]:
    """Features that a projection takes and gives; None where they are not known."""

    def first_of(*names: str) -> object:
        return next((getattr(layer, name) for name in names if hasattr(layer, name)), None)

    return first_of("in_features", "in_channels", "nx"), first_of(
        "out_features", "out_channels", "nf"
    )


def _with_low_rank_beside(projections: Sequence[nn.Module]) -> nn.Module | None:
    """The projection in -> out beside a chain in -> rank -> out of two others, if there is one."""
    pairs = [(layer, *widths(layer)) for layer in projections]
    for (down, n_in, rank), (_, same_rank, n_out) in itertools.combinations(pairs, 2):
        if rank != same_rank or getattr(down, "bias", None) is not None:
            continue
        if not (isinstance(n_in, int) and isinstance(rank, int) and isinstance(n_out, int)):
            continue
        bases = [layer for layer, *between in pairs if between == [n_in, n_out]]
        if bases and rank < min(n_in, n_out):
            return bases[0]
    return None
