"""On which of a model's inputs its layers work: text or pixels, the encoder's or the decoder's."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from repsim_fast.capture.features import first_tensor


class Towers:
    """Kinds of the inputs that the modules around a layer are given.

    The innermost module decides that is given inputs of the model of one kind, the tensors
    themselves, or nothing but what another module has made of them: a cross-attention's keys come
    from the encoder. What is seen in the first pass holds for later ones, which are not watched.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kinds: dict[int, Hashable] = {}  # of the present pass's inputs, by id
        # What modules returned, by its memory, of which a flattening or transposition is a view.
        self._made: dict[int, tuple[ref[Tensor], Hashable]] = {}
        self._running: list[Hashable] = []  # of the modules at work, the innermost last
        self._layers: dict[str, Hashable] = {}
        self._hooks = contextlib.ExitStack()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Passes are inside; no hook is left afterwards."""
        with self._hooks:
            yield

    def start(self, kinds: Sequence[tuple[Tensor, Hashable]], *, watch: bool) -> None:
        """A pass begins on inputs of these kinds. Of a tensor that has two, nothing tells."""
        self._hooks.close()
        self._running.clear()
        self._made.clear()
        of: dict[int, set[Hashable]] = {}
        for tensor, kind in kinds:
            of.setdefault(id(tensor), set()).add(kind)
        self._kinds = {number: kind for number, (kind, *more) in of.items() if not more}
        if watch and not self._layers:
            self._watch()

    def kind(self, layer: str) -> Any:
        """Of the inputs on which the layer works that is at work; None where nothing tells."""
        if layer not in self._layers:
            self._layers[layer] = self._running[-1] if self._running else None
        return self._layers[layer]

    def _watch(self) -> None:
        for module in self._model.modules():
            if module is not self._model and not isinstance(module, torch.jit.ScriptModule):
                # Around what others hooked: the module is at work for them, too.
                before = module.register_forward_pre_hook(
                    self._before, prepend=True, with_kwargs=True
                )
                self._hooks.callback(before.remove)
                self._hooks.callback(module.register_forward_hook(self._after).remove)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        kinds = {self._kinds[id(x)] for x in given if id(x) in self._kinds}
        if len(given) == 1 and not kinds:
            tensor, kind = self._made.get(_memory(given[0]), (None, None))
            if tensor is not None and tensor() is not None:
                kinds = {kind}
        around = self._running[-1] if self._running else None
        self._running.append(kinds.pop() if len(kinds) == 1 else around)

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._running:
            return
        kind = self._running.pop()
        if kind is not None and (x := first_tensor(output)) is not None:
            self._made[_memory(x)] = ref(x), kind


def _memory(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
