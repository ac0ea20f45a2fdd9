"""Borrow a model for an attack and give it back exactly as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .buffers import buffers_kept
from .model_state import ModelMode, in_mode, parameters_frozen
from .randomness import private_rng

__all__ = ["Model", "ModelMode", "borrow", "call", "input_gradient", "model_dtype"]

Model = Callable[[Tensor], Any]
"""Anything that maps images (N, ...) to logits (N, n_classes), or to an object or mapping that has
them as ``logits``; usually an ``nn.Module``."""


@contextlib.contextmanager
def borrow(
    model: Model, *, mode: ModelMode = "eval", device: torch.device, seed: int
) -> Iterator[None]:
    """Let an attack differentiate ``model`` with respect to its input, and nothing else.

    Inside: gradients are recorded (also when the caller is in ``no_grad`` or ``inference_mode``),
    no parameter requires one, modules are in ``mode`` and the global random generators of the CPU
    and of ``device`` are seeded from the attack's own stream, so that a stochastic model is
    attacked reproducibly. Afterwards, also after an exception: every module's own training flag,
    every parameter's ``requires_grad``, every buffer's value (BatchNorm statistics in mode
    "train") and the global random state are as before. Nothing ever touches ``.grad``.

    Args:
        model: A module; a plain callable has no state to keep.
        mode: "eval" (default), "train" (batch statistics) or "keep" (each module's own flag).
        device: Device of the images.
        seed: Seed of the random numbers that the model itself may draw.
    """
    if mode not in ("eval", "train", "keep"):
        raise ValueError(f"model_mode must be 'eval', 'train' or 'keep', got {mode!r}")
    models = [model] if isinstance(model, nn.Module) else []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        private_rng(device, seed),
        buffers_kept(models),
        parameters_frozen(models),
        in_mode(models, mode),
    ):
        yield


def model_dtype(model: Model, default: torch.dtype) -> torch.dtype:
    """Dtype in which ``model`` wants its images: that of its first floating-point parameter."""
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            if parameter.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
                return parameter.dtype
    return default


def call(model: Model, images: Tensor, *, copy: bool = True) -> Tensor:
    """Logits (N, n_classes) of ``model``, in float32 or float64.

    A model may return them, or an object or mapping that has them as ``logits``, as those of
    Transformers do.

    Images are cast to the dtype of the model's parameters: attacks keep their own state in
    float32 whatever the model computes in. They stay as they are, also where the model writes on
    what it is given, unless ``copy`` is False.

    Raises:
        ValueError: The output is no tensor of shape (N, n_classes) with two classes or more.
        TypeError: The output is not floating point.
    """
    output = _logits(model(images.to(model_dtype(model, images.dtype), copy=copy)))
    if output.ndim != 2 or output.shape[0] != images.shape[0] or output.shape[1] < 2:
        raise ValueError(
            f"model must return logits of shape ({images.shape[0]}, n_classes >= 2), "
            f"got {tuple(output.shape)}"
        )
    if not output.is_floating_point():
        raise TypeError(f"model must return floating-point logits, got {output.dtype}")
    return output if output.dtype == torch.float64 else output.float()


def _logits(output: Any) -> Tensor:
    """What of a model's output are its logits."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits", next(iter(output.values())) if len(output) == 1 else None)
    if isinstance(found, Tensor):
        return found
    there = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise ValueError(
        "model must return logits, a tensor of shape (N, n_classes), or have them in .logits or "
        f"['logits'], got {type(output).__name__}{there}; put a module around it that returns them "
        "(for attacks, evaluate and certify lambda x: model(x)[0] does)"
    )


def input_gradient(value: Tensor, images: Tensor) -> Tensor:
    """Gradient of the sum of ``value`` (N,) with respect to ``images`` only.

    The sum, not the mean: a sample's gradient must not depend on its batch.

    Raises:
        ValueError: ``value`` does not depend on the images differentiably.
    """
    message = (
        "model is not differentiable with respect to its images: its output carries no gradient "
        "(is it wrapped in no_grad, detached, or converted to numpy?)"
    )
    if not value.requires_grad:
        raise ValueError(message)
    (gradient,) = torch.autograd.grad(value.sum(), images, allow_unused=True)
    if gradient is None:
        raise ValueError(message)
    return gradient
