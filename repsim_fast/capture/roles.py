"""Roles of a transformer's layers, the same in families that name their layers differently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from repsim_fast.capture.kinds import layer_kind, widths

HIDDEN_STATES, ATTENTION, MLP = "hidden_states", "attention", "mlp"

_IS_ROLE = re.compile(rf"(.*\.)?({HIDDEN_STATES}|{ATTENTION}|{MLP})\.", re.IGNORECASE)

# Names of attention whose class does not say that it is one.
_ATTENTIONS = {"attn", "attention", "self_attn", "self_attention"}

_LISTS = (nn.ModuleList, nn.Sequential)

# Inside a mixture of experts, whose last projection is that of one of them or of the router.
_OF_EXPERTS = {"experts", "router"}


class Role(NamedTuple):
    """A place in a transformer.

    Attributes:
        layer: Name of the module.
        module: The module.
        block: The block that it is in, or is.
        given: Whether what the module is given counts, and not what it returns.
    """

    layer: str
    module: nn.Module
    block: nn.Module
    given: bool = False


def asks_for_role(pattern: str) -> bool:
    """Whether a name or pattern is like that of a role."""
    return _IS_ROLE.match(pattern) is not None


def find_roles(layers: Mapping[str, nn.Module]) -> dict[str, Role]:
    """The roles that a model has, in the order of the blocks, which are numbered from 1.

    - ``hidden_states.0``: what the first block is given, as a rule the embeddings;
      ``hidden_states.i``: what block i returns, before any norm that follows the last one.
    - ``attention.i``: output of the attention of block i (of several the first, which is that of
      the tokens to themselves), after its last projection and before anything else: dropout, a
      scale, the residual sum, its norm.
    - ``mlp.i``: the same of the MLP; of a mixture of experts what they return together.

    Blocks are the modules of one class in a ``ModuleList`` or ``Sequential`` that hold attention
    and projections outside of it. Where there are several such lists, as in an encoder and a
    decoder, roles begin with the part of the model that the list is in: ``encoder.mlp.1``.

    Args:
        layers: Modules of the model by name.
    """
    stacks = _stacks(layers)
    if _stages(layers, stacks):
        return {}
    names = {id(module): name for name, module in layers.items()}
    found: dict[str, Role] = {}
    for prefix, blocks in zip(_prefixes(list(stacks)), stacks.values(), strict=True):
        found[f"{prefix}{HIDDEN_STATES}.0"] = Role(names[id(blocks[0])], blocks[0], blocks[0], True)
        for number, block in enumerate(blocks, 1):
            places = {ATTENTION: _attention(block), MLP: _mlp(block), HIDDEN_STATES: block}
            for role, module in places.items():
                if module is not None and id(module) in names:
                    found[f"{prefix}{role}.{number}"] = Role(names[id(module)], module, block)
    return found


def why_no_roles(layers: Mapping[str, nn.Module]) -> str:
    """Why a model has none."""
    if stages := _stages(layers, _stacks(layers)):
        return (
            f"blocks come in {len(stages)} stages ({', '.join(map(repr, stages))}), each a stream "
            "of its own: name the layers of stages"
        )
    return "no ModuleList or Sequential inside holds blocks of one class with attention and an MLP"


def in_short(roles: Mapping[str, Role]) -> str:
    """The names in a line: "hidden_states.0 to .12, attention.1 to .12"."""
    numbers: dict[str, list[str]] = {}
    for role in roles:
        name, _, number = role.rpartition(".")
        numbers.setdefault(name, []).append(number)
    return ", ".join(
        f"{name}.{n[0]}" + (f" to .{n[-1]}" if len(n) > 1 else "") for name, n in numbers.items()
    )


def _stacks(layers: Mapping[str, nn.Module]) -> dict[str, list[nn.Module]]:
    """The innermost lists of blocks, by name."""
    known = set(map(id, layers.values()))
    lists: dict[str, list[nn.Module]] = {}
    for name, module in layers.items():
        if isinstance(module, _LISTS):
            # A compiled block is hooked itself, not its wrapper.
            blocks = [getattr(block, "_orig_mod", block) for block in module]
            if (
                len(set(map(id, blocks)) & known) == len(blocks)  # none twice
                and len(set(map(type, blocks))) == 1
                and any(map(_is_block, blocks))
            ):
                lists[name] = blocks
    return {
        name: blocks
        for name, blocks in lists.items()
        if len(_within(layers[name], layers, lists)) == 1
    }


def _within(module: nn.Module, layers: Mapping[str, nn.Module], names: Iterable[str]) -> list[str]:
    """Those of the names whose modules are inside a module, or are it."""
    inside = set(map(id, module.modules()))
    return [name for name in names if id(layers[name]) in inside]


def _stages(layers: Mapping[str, nn.Module], stacks: Mapping[str, object]) -> list[str]:
    """Lists of blocks that are inside of one list, as stages are."""
    found = (_within(m, layers, stacks) for m in layers.values() if isinstance(m, _LISTS))
    return max((names for names in found if len(names) > 1), key=len, default=[])


def _prefixes(stacks: Sequence[str]) -> list[str]:
    """What comes before the roles of each list: the first part of its name that others have not."""
    if len(stacks) < 2:
        return [""] * len(stacks)
    paths = [name.split(".") for name in stacks]
    parts = zip(*paths, strict=False)  # lists are not inside of one another: they part somewhere
    shared = next(i for i, level in enumerate(parts) if len(set(level)) > 1)
    heads = [path[shared] for path in paths]
    return [f"{name}." for name in (heads if len(set(heads)) == len(heads) else stacks)]


def _is_block(module: nn.Module) -> bool:
    return (
        not isinstance(module, (nn.ModuleList, nn.ModuleDict))  # which are never called
        and re.search("(Attention|Attn)$", type(module).__name__) is None
        and _attention(module) is not None
        and _mlp(module) is not None
    )


def _attention(block: nn.Module) -> nn.Module | None:
    first = _first_attention(block)
    return None if first is None else _last_projection(first, _width(block))


def _mlp(block: nn.Module) -> nn.Module | None:
    outside = [m for m, is_attention in _parts_of(block) if not is_attention]
    return _last_of_width(outside, _width(block))


def _last_projection(attention: nn.Module, width: object) -> nn.Module | None:
    """What returns the output of an attention, which may be made of another one."""
    inside = list(_parts_of(attention))
    # torch's own takes the weights of its projection without calling it.
    if isinstance(attention, nn.MultiheadAttention) or not inside:
        return _alone(attention)
    last, is_attention = inside[-1]
    if is_attention:
        return _last_projection(last, width)
    return _last_of_width([m for m, is_attention in inside if not is_attention], width)


def _last_of_width(projections: Sequence[nn.Module], width: object) -> nn.Module | None:
    """The last one that returns as many features as the stream has: others mix heads, or give
    scales and shifts."""
    fitting = [m for m in projections if None in (width, out := widths(m)[1]) or out == width]
    return _alone(fitting[-1]) if fitting else None


def _width(block: nn.Module) -> object:
    """Features of the stream: those that the first projection of attention takes, if it tells."""
    module = _first_attention(block)
    while module is not None and not isinstance(module, nn.MultiheadAttention):
        first, is_attention = next(_parts_of(module), (None, False))
        if not is_attention:
            return None if first is None else widths(first)[0]
        module = first
    return None if module is None else module.embed_dim


def _alone(module: nn.Module) -> nn.Module | None:
    """A module as a whole, unless it holds a norm, with which it may hold the residual sum."""
    return None if any(layer_kind(m) == "norm" for m in module.modules()) else module


def _first_attention(block: nn.Module) -> nn.Module | None:
    return next((m for m, is_attention in _parts_of(block) if is_attention), None)


def _parts_of(module: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Attention, projections (with the adapters that they may have) and mixtures of experts inside,
    in the order of declaration, and nothing that is inside of them; whether each is attention."""
    for name, child in module.named_children():
        kind = layer_kind(child)
        if kind == ATTENTION or (kind is None and name in _ATTENTIONS and list(child.children())):
            yield child, True
        elif kind in ("linear", "conv") or _OF_EXPERTS & child._modules.keys():
            yield child, False
        else:
            yield from _parts_of(child)
