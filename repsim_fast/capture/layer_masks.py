"""Which mask the tokens of a layer have, in models that take tokens of several kinds, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from repsim_fast.capture.layers import modules_by_layer
from repsim_fast.capture.masks import DEFAULT, MaskSpec, TokenMask, find_mask, mask_like
from repsim_fast.capture.samples import UnfitError
from repsim_fast.capture.towers import Towers

_DECODERS = "decoder_"
_UNMASKED = ""  # kind of inputs that have no mask; of others, the name of their mask


class LayerMasks:
    """The masks of a model's layers in the present pass.

    By default a layer has the mask of the inputs on which it works: ``attention_mask`` is neither
    that of an image beside the text nor that of what a decoder is given.

    Args:
        model: The model.
        spec: As ``mask`` of ``Capture``.
    """

    def __init__(self, model: nn.Module, spec: MaskSpec) -> None:
        self._rest = None if isinstance(spec, Mapping) else spec
        of_layers = spec if isinstance(spec, Mapping) else {}
        self._patterns = {p: of_layers[p] for p in of_layers if _matches_any(p, [model])}
        self._is_pair = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        self._towers = Towers(model)
        # Of the present pass: by default, by pattern of layers, by kind of inputs.
        self._default: TokenMask | None = None
        self._by_pattern: dict[str, TokenMask | None] = {}
        self._by_kind: dict[str, TokenMask | None] = {}
        self._decoders: list[str] = []  # names of a decoder's inputs, without a mask
        self._several = False  # kinds of inputs
        self._conflict = ""
        self._may_be_masks: dict[str, None] = {}  # names of inputs
        self._bare: dict[str, None] = {}  # of a decoder's, where a layer works on them

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """The model's passes are inside."""
        return self._towers.watching()

    def start(self, inputs: Any) -> None:
        """A pass on these inputs begins.

        Raises:
            ValueError, TypeError: As :func:`~repsim_fast.capture.masks.find_mask`.
        """
        self._default = find_mask(inputs, self._rest)
        self._by_pattern = {
            pattern: None if one is None else find_mask(inputs, one)
            for pattern, one in self._patterns.items()
        }
        if self._rest is not None:
            return
        found = list(_kinds(inputs)) if isinstance(inputs, Mapping) else []
        self._by_kind = {
            kind: find_mask(inputs, kind) if kind in inputs else None for _, _, kind in found
        }
        self._decoders = [
            name for name, _, kind in found if name.startswith(_DECODERS) and kind == _UNMASKED
        ]
        self._conflict = self._find_conflict(inputs)
        self._several = bool(self._conflict) or len(self._by_kind) > 1
        self._towers.start([(x, kind) for _, x, kind in found], watch=self._several)
        if self._default is None and not self._patterns:
            unused = [name for name in mask_like(inputs) if name not in self._by_kind]
            self._may_be_masks.update(dict.fromkeys(unused))

    def of(self, layer: str, ndim: int) -> TokenMask | None:
        """The mask of the layer that is at work, None if all of its tokens are real.

        Args:
            layer: Its name, with the number of the call.
            ndim: Dimensions of what it returned; of two, it has no tokens.

        Raises:
            UnfitError: Nothing tells whose tokens its are.
        """
        for pattern in self._patterns:
            if _matches(pattern, layer):
                return self._by_pattern[pattern]
        kind = self._towers.kind(layer) if self._several else None
        if kind is None:
            if self._conflict and ndim > 2:
                raise UnfitError(self._conflict)
            return self._default
        if kind == _UNMASKED and self._default is not None:
            self._bare.update(dict.fromkeys(self._decoders))
        return self._by_kind.get(kind, self._default)

    def notes(self) -> list[str]:
        """What is read as real although it might be padding."""
        notes = []
        if self._may_be_masks:
            notes.append(
                f"all tokens count: {_named(self._may_be_masks)} among the inputs is not taken for "
                "a mask; if it says which tokens are padding, give mask=callable, inputs -> "
                "(N, T), 1 for real tokens"
            )
        if self._bare:
            notes.append(
                f"all tokens of {_named(self._bare)} count: {_DECODERS}{DEFAULT} is not among the "
                f"inputs; if some are padding, give it or mask={{'decoder.*': callable}}, inputs "
                "-> (N, T), 1 for real tokens"
            )
        return notes

    def _find_conflict(self, inputs: Any) -> str:
        """Why tokens of the mask's number may be others: masks are told apart by their numbers."""
        masks = [mask for mask in (self._default, *self._by_kind.values()) if mask is not None]
        if self._default is None or not any(mask.padded for mask in masks):
            return ""
        length = self._default.tokens.shape[1]
        names = [name for name in inputs if str(name).startswith(_DECODERS)]
        for name in names or ["labels"] * self._is_pair:
            tokens = inputs.get(name)
            if isinstance(tokens, Tensor) and tokens.ndim > 1 and tokens.shape[1] == length:
                return (
                    f"{DEFAULT} and {name} have {length} tokens both, so that nothing tells whose "
                    f"its tokens are; say it by mask={{'encoder.*': {DEFAULT!r}, 'decoder.*': ...}}"
                )
        return ""


def check_masks(spec: MaskSpec, models: Iterable[nn.Module]) -> None:
    """Raises TypeError unless it is a mask of all layers or of some, ValueError where a pattern
    matches no layer of any model."""
    for one in spec.values() if isinstance(spec, Mapping) else [spec]:
        if not (one is None or isinstance(one, str) or callable(one)):
            raise TypeError(
                "mask: expected the name of an input, a callable inputs -> (N, T), a mapping of "
                f"patterns of layers to these, or None, got {one!r}"
            )
    if not isinstance(spec, Mapping):
        return
    among = list(models)
    for pattern in spec:
        if not isinstance(pattern, str):
            raise TypeError(f"mask: expected names or patterns of layers, got {pattern!r}")
        if not _matches_any(pattern, among):
            raise ValueError(f"mask: {pattern!r} matches no layer; list_layers shows what there is")


def _kinds(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Tensor, str]]:
    """Names of the inputs that are tokens, and whose mask is known: with it or without one."""
    masks = {name: inputs[name] for name in mask_like(inputs) if name in inputs}
    text = masks.get(DEFAULT)
    for name, x in inputs.items():
        if not isinstance(x, Tensor) or name in masks:
            continue
        if name.startswith(_DECODERS):
            own = f"{_DECODERS}{DEFAULT}"
            yield name, x, own if own in masks else _UNMASKED
        elif text is None or (x.ndim <= 3 and x.shape[:2] == text.shape):
            yield name, x, DEFAULT
        elif x.is_floating_point() and x.ndim >= 3:  # pixels, sound
            theirs = [m for m in masks if m.endswith(DEFAULT) and masks[m].shape == x.shape[:2]]
            yield name, x, theirs[0] if theirs else _UNMASKED


def _matches_any(pattern: str, models: Iterable[nn.Module]) -> bool:
    of_all_calls = pattern.partition("#")[0]
    return any(fnmatchcase(n, of_all_calls) for model in models for n in modules_by_layer(model))


def _matches(pattern: str, layer: str) -> bool:
    """Whether a name, of one call or of all, is that or like that."""
    return fnmatchcase(layer, pattern) or fnmatchcase(layer.rpartition("#")[0] or layer, pattern)


def _named(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
