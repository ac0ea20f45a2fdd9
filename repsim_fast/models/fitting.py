"""Weights of a file put into a network: which of the file's state dicts fit it, and how."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .masked_states import without_masks
from .state_files import States

# What torch.compile, FSDP and activation checkpointing put into names anywhere.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Buffers that say nothing of what a network computes in evaluation mode.
_UNUSED = re.compile(r"(^|\.)(num_batches_tracked|n_averaged)$")
# Layers before a network that normalise its images, as RobustBench and `robustness` name them.
_MEAN = re.compile(r"(^|\.)(mu|(new_)?mean|image_mean|pixel_mean)$")
_STD = re.compile(r"(^|\.)(sigma|(new_)?std|image_std|pixel_std)$")
_SHOWN = 3

Rename = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class MisfitError(ValueError):
    """No state dict of a file fits a network.

    Attributes:
        shapes: Of the nearest one, the shapes (wanted, got) of weights of another shape.
        missing: Of the nearest one, the weights that it lacks.
        unexpected: Whether it has some that the network lacks.
    """

    def __init__(self, message: str, nearest: Fit | None = None) -> None:
        super().__init__(message)
        self.shapes = {} if nearest is None else nearest.shapes
        self.missing = [] if nearest is None else nearest.missing
        self.unexpected = nearest is not None and bool(nearest.unexpected)


@dataclass(frozen=True)
class Fit:
    """One way to read a file's weights for a network, and what is wrong with it.

    Attributes:
        label: Where the weights lie: keys with "/" between them, then the prefix of their names.
        state: Weights by the network's names.
        mean, std: Of the normalisation before the network, where the file has it.
        left: Other tensors of the state dict.
        headless: Whether the network's classifier was taken out, which the file lacks.
    """

    label: str
    state: Mapping[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    shapes: Mapping[str, tuple[torch.Size, torch.Size]]
    mean: Tensor | None = None
    std: Tensor | None = None
    left: list[str] = field(default_factory=list)
    headless: bool = False

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def problems(self) -> str:
        """What is wrong, with some names of each kind."""
        shapes = [
            f"{key} must be {tuple(w)}, got {tuple(g)}" for key, (w, g) in self.shapes.items()
        ]
        kinds = [("missing", self.missing), ("unexpected", self.unexpected)]
        kinds.append(("of another shape", shapes))
        return "; ".join(f"{len(some)} {kind}: {_some(some)}" for kind, some in kinds if some)


def fit(
    states: States, model: nn.Module, *, what: str, key: str | None, rename: Rename | None = None
) -> Fit:
    """`found_fit`, put into the network, whose weights keep their own dtypes."""
    found = found_fit(states, model, what=what, key=key, rename=rename)
    own = model.state_dict()
    with torch.no_grad():
        for name, value in found.state.items():
            own[name].copy_(value)
    return found


def found_fit(
    states: States, model: nn.Module, *, what: str, key: str | None, rename: Rename | None = None
) -> Fit:
    """The one state dict that has all weights of the network.

    Args:
        states: What a file holds.
        model: The network, as it is.
        what: File and architecture, for messages.
        key: Which one, where several fit; a label of `Fit`.
        rename: Makes this package's names of others that the same network has elsewhere.

    Raises:
        MisfitError: None has.
        ValueError: Several have, and ``key`` names none of them.
    """
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    found = [one for where, state in states.items() for one in _fits(where, state, wanted, rename)]
    if key is not None:
        named = [one for one in found if one.label == key]
        if not named:
            there = ", ".join(repr(one.label) for one in found) or "none that has such weights"
            raise ValueError(f"{what}: no weights under {key!r}; there are {there}")
        found = named
    good = [one for one in found if one.fits]
    if len(good) > 1:
        labels = ", ".join(repr(one.label) for one in good)
        raise ValueError(
            f"{what}: {len(good)} sets of weights fit, {labels}; say which as FILE#{good[0].label}"
        )
    if not good:
        raise _misfit(what, states, found)
    return good[0]


def _fits(
    where: str, state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], rename: Rename | None
) -> Iterator[Fit]:
    """A state dict with each prefix under which it has names of the network."""
    state = {_unwrapped(name): value for name, value in state.items()}
    if rename is not None:
        state = dict(rename(state))
    state = dict(without_masks(state, wanted))
    matched = Counter(prefix for name in state for prefix in _prefixes(name, wanted))
    needed = [name for name in wanted if not _UNUSED.search(name)]
    whole = [p for p in matched if all(p + name in state for name in needed)]
    # A name of one layer, such as "weight", is found under every layer.
    for prefix in whole or [p for p, n in matched.most_common(1) if n]:
        yield _fit(where, prefix, state, wanted, whole)


def _prefixes(name: str, wanted: Mapping[str, torch.Size]) -> Iterator[str]:
    parts = name.split(".")
    for start in range(len(parts)):
        if ".".join(parts[start:]) in wanted:
            yield "".join(f"{part}." for part in parts[:start])


def _fit(
    where: str,
    prefix: str,
    state: Mapping[str, Tensor],
    wanted: Mapping[str, torch.Size],
    whole: list[str],
) -> Fit:
    inner = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    taken = {name: inner[name] for name in wanted if name in inner}
    elsewhere = tuple(p for p in whole if p != prefix and p.startswith(prefix))
    outside = [name for name in state if not name.startswith(prefix)]
    unknown = [
        prefix + name
        for name in inner
        if name not in wanted and not (prefix + name).startswith(elsewhere)
    ]
    rest = [name for name in (*outside, *unknown) if not _UNUSED.search(name)]
    mean, std = (_only(state, rest, pattern) for pattern in (_MEAN, _STD))
    return Fit(
        label="/".join(filter(None, (where, prefix.rstrip(".")))) or "whole file",
        state=taken,
        missing=[name for name in wanted if name not in taken and not _UNUSED.search(name)],
        unexpected=[name for name in unknown if name in rest and not _normalises(name)],
        shapes={
            name: (wanted[name], value.shape)
            for name, value in taken.items()
            if value.shape != wanted[name]
        },
        mean=mean if std is not None else None,
        std=std if mean is not None else None,
        left=[name for name in outside if name in rest and not _normalises(name)],
    )


def _normalises(name: str) -> bool:
    return bool(_MEAN.search(name) or _STD.search(name))


def _only(state: Mapping[str, Tensor], names: list[str], pattern: re.Pattern[str]) -> Tensor | None:
    found = [state[name] for name in names if pattern.search(name)]
    return found[0].flatten() if len(found) == 1 and found[0].numel() <= 4 else None


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _misfit(what: str, states: States, found: list[Fit]) -> MisfitError:
    tried = "; ".join(
        f"{one.label!r} with {len(one.state) - len(one.shapes)} of "
        f"{len(one.state) + len(one.missing)} weights"
        for one in found
    )
    if not found:
        where, state = max(states.items(), key=lambda item: len(item[1]))
        some = [f"{name} {tuple(x.shape)}" for name, x in state.items()]
        raise MisfitError(
            f"{what}: none of the file's names are those of the network; {where or 'it'} has "
            f"{len(state)} tensors, {_some(some)}"
        )
    best = max(found, key=lambda one: len(one.state) - len(one.shapes) - len(one.unexpected))
    return MisfitError(f"{what}: the weights do not fit; {best.problems} (tried: {tried})", best)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
