"""Borrow models and give them back exactly as they were."""

from __future__ import annotations

import contextlib
import itertools
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .threads import WhileUsed

ModelMode = Literal["eval", "train", "keep"]
"""Mode of the modules for a while: all eval, all train, or each as it is."""


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def has_hooks(module: nn.Module) -> bool:
    """Whether anything runs before or after the module's own code."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def structure(model: nn.Module) -> tuple[Any, ...]:
    """Equal while a model has the same modules and they run alike; values of tensors may change."""
    modules = [
        (m, plain_attributes(m), has_hooks(m), m.__dict__.get("forward"), m._compiled_call_impl)
        for m in model.modules()
    ]
    tensors = [
        None if t is None or is_lazy(t) else (t.dtype, t.device, t.shape, t.requires_grad)
        for m in model.modules()
        for t in (*m._parameters.values(), *m._buffers.values())
    ]
    return (*modules, *tensors)


def plain_attributes(module: nn.Module) -> tuple[Any, ...]:
    """What a module's code may branch on: its mode, and all else that is no object of its own."""
    return tuple((name, value) for name, value in vars(module).items() if _is_plain(value))


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def check_hookable(model: object) -> nn.Module:
    """``model`` itself, if it is a module whose layers run in Python.

    Raises:
        TypeError: It is no ``nn.Module``, or a scripted one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "model is a TorchScript module, whose layers run outside Python where no hook "
            "can see them; pass the module it was scripted or traced from"
        )
    return model


def eager() -> contextlib.AbstractContextManager[None]:
    """A context in which models run module by module, uncompiled, and so run their hooks.

    A graph that was compiled before a hook was added would skip it in silence. The fast path of
    ``nn.TransformerEncoder`` packs padded samples into nested tensors, which no layer outside the
    fast path takes, and a layer with a hook is outside it.
    """
    return _while_eager()


class _Eager:
    """Both are settings of the process."""

    fast: bool
    stance: Any = None

    def make(self, first: bool) -> None:
        if first:
            self.fast = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        # Nothing can have been compiled before torch._dynamo was imported, which takes seconds.
        if self.stance is None and "torch._dynamo" in sys.modules:
            stance = torch.compiler.set_stance("force_eager")
            stance.__enter__()
            self.stance = stance

    def take_back(self) -> None:
        torch.backends.mha.set_fastpath_enabled(self.fast)
        if self.stance is not None:
            self.stance.__exit__(None, None, None)
            self.stance = None


_eager = _Eager()
_while_eager = WhileUsed(_eager.make, _eager.take_back)


@contextlib.contextmanager
def evaluating(models: Iterable[nn.Module]) -> Iterator[None]:
    """Every module in eval mode inside; each module's own mode as before afterwards."""
    with in_mode(models, "eval"):
        yield


@contextlib.contextmanager
def in_mode(models: Iterable[nn.Module], mode: ModelMode) -> Iterator[None]:
    """Every module in one mode inside ("keep": its own); its own as before afterwards."""
    # A frozen TorchScript module has no modes.
    modules = [module for module in modules_of(models) if hasattr(module, "training")]
    flags = [module.training for module in modules]
    try:
        if mode != "keep":
            for module in modules:
                # Assigned, not .eval(): overridden train() methods may have side effects.
                _set_training(module, mode == "train" and module not in _always_in_eval)
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            _set_training(module, flag)


_always_in_eval: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@contextlib.contextmanager
def always_in_eval(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Modules that are in eval mode inside, also where their model is put in training mode."""
    chosen = list(modules)
    added = [module for module in chosen if module not in _always_in_eval]
    with in_mode(chosen, "eval"):
        _always_in_eval.update(added)
        try:
            yield
        finally:
            _always_in_eval.difference_update(added)


def begin_training(model: nn.Module) -> None:
    """Training mode, but for the modules that are always in eval mode."""
    model.train()
    for module in model.modules():
        if module in _always_in_eval:
            _set_training(module, False)


def _set_training(module: nn.Module, training: bool) -> None:
    if module.training != training:
        module.training = training


def modules_of(models: Iterable[nn.Module]) -> list[nn.Module]:
    """All modules of all models, each once."""
    return list({id(m): m for model in models for m in model.modules()}.values())


def check_has_values(model: nn.Module) -> None:
    """A model whose lazy parameters, if there are any, have been run.

    Raises:
        ValueError: They have not: what shapes they take is unknown.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ValueError(f"model: {name!r} has no value yet: run the model once first")


@contextlib.contextmanager
def parameters_frozen(models: Iterable[nn.Module]) -> Iterator[None]:
    """No parameter requires a gradient inside; ``.grad`` is never touched.

    Raises:
        ValueError: A lazy parameter, whose shape no pass has told yet.
    """
    models = list(models)
    for model in models:
        check_has_values(model)
    # A parameter that is no leaf (functional calls) cannot be switched off and needs no switch; one
    # made in inference mode could not be switched on again.
    tracked = [
        p
        for module in modules_of(models)
        for p in module.parameters(recurse=False)
        if p.requires_grad and p.is_leaf and not p.is_inference()
    ]
    try:
        for parameter in tracked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in tracked:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def gradients_set_aside(models: Iterable[nn.Module]) -> Iterator[None]:
    """Parameters without ``.grad`` inside; ``.grad`` and ``requires_grad`` as before afterwards.

    Set aside rather than kept: code that calls ``backward`` inside would add to them in place.
    """
    parameters = {id(p): p for model in models for p in model.parameters()}.values()
    kept = [(p, p.requires_grad, p.grad) for p in parameters]
    try:
        for parameter, _, grad in kept:
            if grad is not None:
                parameter.grad = None
        yield
    finally:
        for parameter, requires_grad, grad in kept:
            if grad is not None or parameter.grad is not None:
                parameter.grad = grad
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter or buffer that has values; the CPU for a model without.

    Weights on the meta device are offloaded: hooks bring them, and inputs to where they are then.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    first = next((tensor for tensor in tensors if not tensor.is_meta), None)
    return torch.device("cpu") if first is None else first.device


def usable_device(device: torch.device | str) -> torch.device:
    """``device`` as a ``torch.device`` that this machine has.

    Raises:
        RuntimeError: torch has no such device here.
    """
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (RuntimeError, AssertionError) as error:  # a torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise RuntimeError(
            f"device={str(device)!r} was asked for, but torch cannot use it here: {reason}"
        ) from error


@contextlib.contextmanager
def placed(models: Iterable[nn.Module], device: torch.device | None) -> Iterator[None]:
    """Models on ``device`` inside (None: each where it is) and back home afterwards.

    Raises:
        ValueError: A model to be moved has its parameters on several devices, or offloaded.
    """
    homes: list[tuple[nn.Module, torch.device]] = []
    if device is not None:
        for model in {id(m): m for m in models}.values():
            home = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
            if len(home) > 1 or torch.device("meta") in home:
                raise ValueError(
                    f"device={str(device)!r} cannot hold {type(model).__name__}, whose parameters "
                    f"are spread over {sorted(map(str, home))}; leave device=None"
                )
            homes.extend((model, place) for place in home if place != device)
    try:
        for model, _ in homes:
            model.to(device)
        yield
    finally:
        for model, home_device in homes:
            model.to(home_device)
