"""In what form the features of a model's layers come: maps and tokens become matrices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from repsim_fast.capture.features import (
    Channels,
    first_token,
    flatten,
    last_token,
    mean_of_tokens,
    positions,
    real_tokens,
    samples_first,
)
from repsim_fast.capture.layer_masks import LayerMasks
from repsim_fast.capture.layers import modules_by_layer
from repsim_fast.capture.layout import ChannelsOf, Layouts
from repsim_fast.capture.masks import MaskSpec, TokenMask, inputs_of_call
from repsim_fast.capture.means import Means
from repsim_fast.capture.samples import Place, Places, UnfitError, by_sample

Form: TypeAlias = Literal["flatten", "pool", "positions", "tokens", "mean", "cls", "last"]
Maps: TypeAlias = "Form | Callable[[Tensor], Tensor]"
"""How activations of more than two dimensions become a matrix; a callable does it itself."""

OF_TOKENS = ("tokens", "mean", "cls", "last")
FORMS = ("flatten", "pool", "positions", *OF_TOKENS)

_MASKED = {
    "tokens": real_tokens,
    "mean": mean_of_tokens,
    "cls": first_token,
    "last": last_token,
}


class Forms:
    """Features of what the layers of one model return.

    Args:
        model: The model.
        maps: As for ``Capture``.
        mask: As for ``Capture``.
        channels: As for ``Capture``.
        any_order: The order of the features does not matter, and they may have several dimensions.

    Attributes:
        rows_are_samples: Whether features have a row for each sample, rather than for each position
            or token, or as a callable gives them.
        places: Where layers have their samples; by default in their first dimension.
        n: Samples in the present pass, where ``places`` says that they are elsewhere.

    Raises:
        ValueError: ``maps`` or ``channels`` is none of those there are.
    """

    def __init__(
        self,
        model: nn.Module,
        maps: Maps,
        *,
        mask: MaskSpec = None,
        channels: ChannelsOf = None,
        any_order: bool = False,
    ) -> None:
        if not callable(maps) and maps not in FORMS:
            raise ValueError(
                f"maps must be {', '.join(map(repr, FORMS))} or a callable, got {maps!r}"
            )
        if not callable(channels) and channels not in ("first", "last", None):
            raise ValueError(
                f"channels must be 'first', 'last', a callable or None, got {channels!r}"
            )
        self.maps = maps
        self.rows_are_samples = maps in ("flatten", "pool", "mean", "cls", "last")
        self.places = Places()
        self.n = 0
        self._model = model
        self._means = Means()
        self._modules: dict[str, nn.Module] | None = None  # by layer, when first needed
        self._masks = LayerMasks(model, mask)
        self._asked = channels
        self._flatten = samples_first if any_order else flatten
        self._layouts = Layouts(model)
        self._channels: dict[tuple[str, int], Channels] = {}  # by call of a layer and dimensions
        self._unknown: list[str] = []
        self._used = False  # features in a pass
        self._watched = False  # a whole pass, in which the layout of all layers was found
        self._layout_hooks = contextlib.ExitStack()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the model's passes inside, from before its layers are hooked."""
        if callable(self.maps):
            yield
            return
        with contextlib.ExitStack() as stack:
            if self.maps != "flatten" and self._asked not in ("first", "last"):
                self._layout_hooks.enter_context(self._layouts.watching())
                stack.enter_context(self._layout_hooks)
                stack.callback(self._model.register_forward_hook(self._end_pass).remove)
            # After the hooks that it may take away, which so have had their turn.
            start = self._model.register_forward_pre_hook(self._start_pass, with_kwargs=True)
            stack.callback(start.remove)
            stack.enter_context(self._masks.watching())
            yield

    def _end_pass(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._watched = self._used

    def _start_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._watched:
            self._layout_hooks.close()
        self._masks.start(inputs_of_call(module, args, kwargs))

    def features(self, name: str, x: Tensor) -> Tensor:
        """Features (n, p) of what a layer has just returned.

        Args:
            name: Of the layer, with the number of the call.
            x: What it returned.

        Raises:
            UnfitError: It has no features of this form.
            ValueError: Padding would count among them.
        """
        if callable(self.maps):
            return self.maps(x)
        self._used = True
        place = self._place(name)
        if self.places.middle:
            self.places.check_middle(name, x, self.n)
        mask = self._masks.of(name, x.ndim)
        if mask is not None:
            if self.maps not in OF_TOKENS:
                self._refuse_padding(name, x, mask)
            elif self.maps != "tokens":
                mask.check_every_sample()
        if self.maps == "flatten":
            return self._flatten(by_sample(x, place, self.n, None))
        channels = "last" if x.ndim <= 2 else self._channels_of(name, x, mask)
        x = by_sample(x, place, self.n, channels)
        if x.ndim <= 2:
            if self.maps == "tokens":
                raise UnfitError("it has no tokens")
            return flatten(x)
        if self.maps == "pool" or (self.maps == "mean" and mask is None):
            return self._means.of(name, self._module(name), x, channels)
        if self.maps == "positions" or (self.maps == "tokens" and mask is None):
            return positions(x, channels)
        x = _tokens(x, channels, mask)
        if mask is None:
            return x[:, 0 if self.maps == "cls" else -1]
        return _MASKED[self.maps](x, mask.on(x.device))

    def notes(self) -> list[str]:
        """What was read in a way that nothing in the model tells to be right."""
        notes = [self.places.note] if self.places.note else []
        notes += self._masks.notes()
        if constant := list(self._means.constant):
            notes.append(
                f"means over positions of {_some(constant)} are equal for all samples but for "
                "rounding, as an instance normalisation makes them; maps='flatten' has what differs"
            )
        if self._unknown:
            notes.append(
                f"where {len(self._unknown)} layers have their channels is not known: "
                f"{_some(self._unknown)}; three dimensions were read as (N, T, D), more as "
                "(N, C, ...); channels= says otherwise"
            )
        return notes

    def _place(self, name: str) -> Place:
        if (reason := self.places.reasons.get(name)) is not None:
            raise UnfitError(reason)
        return self.places.by_layer.get(name, "first")

    def _channels_of(self, name: str, x: Tensor, mask: TokenMask | None) -> Channels:
        key = name, x.ndim
        if key not in self._channels:
            self._channels[key] = self._find_channels(name, x, mask)
        return self._channels[key]

    def _find_channels(self, name: str, x: Tensor, mask: TokenMask | None) -> Channels:
        found = self._asked
        if callable(found):
            found = found(name, self._module(name), x)
            if found not in ("first", "last", None):
                raise ValueError(
                    f"channels must return 'first', 'last' or None, got {found!r} for {name!r}"
                )
        found = found or self._layouts.of(x) or _by_mask(x, mask)
        if found is None:
            self._unknown.append(name)
            found = "last" if x.ndim == 3 else "first"
        return found

    def _module(self, name: str) -> nn.Module:
        """The layer of this name, with the number of the call or without."""
        if self._modules is None:
            self._modules = modules_by_layer(self._model)
        return self._modules.get(name) or self._modules[name.rpartition("#")[0]]

    def _refuse_padding(self, name: str, x: Tensor, mask: TokenMask) -> None:
        n, length = mask.tokens.shape
        has_tokens = length in x.shape[1:] if x.ndim > 2 else len(x) == n * length
        if has_tokens and mask.padded:
            padding = mask.tokens.numel() - int(mask.counts.sum())
            raise ValueError(
                f"maps={self.maps!r} would count padding: {mask.name} has zeros for {padding} of "
                f"{mask.tokens.numel()} tokens, and layer {name!r} returns {tuple(x.shape)}. "
                "Choose maps='tokens' (each real token a sample), 'mean' (over real tokens), 'cls' "
                "or 'last' (the first or last real token)"
            )


def _by_mask(x: Tensor, mask: TokenMask | None) -> Channels | None:
    """Channels of what has one dimension of as many tokens as the mask."""
    if mask is None or x.ndim != 3:
        return None
    length = mask.tokens.shape[1]
    sides: dict[tuple[bool, bool], Channels] = {(True, False): "last", (False, True): "first"}
    return sides.get((x.shape[1] == length, x.shape[2] == length))


def _some(layers: Sequence[str]) -> str:
    return ", ".join(map(repr, layers[:5])) + ", ..." * (len(layers) > 5)


def _tokens(x: Tensor, channels: Channels, mask: TokenMask | None) -> Tensor:
    """(N, T, D) of any layout; dimensions beside tokens and channels go to the channels."""
    own = 1 if channels == "first" else x.ndim - 1
    axes = [i for i in range(1, x.ndim) if i != own]
    if mask is not None:
        n, length = mask.tokens.shape
        if len(x) != n:
            raise UnfitError(f"it returns {len(x)} samples where {mask.name} has {n}")
        axes = [i for i in axes if x.shape[i] == length][-1:]
        if not axes:
            raise UnfitError(f"it returns {tuple(x.shape)} where {mask.name} has {length} tokens")
    if len(axes) != 1:
        raise UnfitError(f"nothing tells which of its positions {tuple(x.shape)} are tokens")
    return x.movedim(axes[0], 1).flatten(2)
