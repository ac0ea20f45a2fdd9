"""In which precision something is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


def native_half(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device multiplies it natively (AMX, AVX512-BF16, Ampere), else None."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return torch.bfloat16 if native else None


def autocast_around(device: torch.device) -> torch.dtype | None:
    """Dtype of the automatic mixed precision that the caller has turned on; None for none."""
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None


@contextmanager
def full_precision() -> Iterator[None]:
    """Turns autocast off, which would take products of float32 features in 16 bits in silence.

    A context, and a decorator: ``@full_precision()``.
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def changing_weights() -> Iterator[None]:
    """Casts weights anew each time they are used, where there is an autocast around.

    It keeps their 16-bit values until its outermost block ends: what changes inside, it overlooks.

    A context, and a decorator: ``@changing_weights()``.
    """
    # A block that turns autocast off, or is of another device, holds on to them as well.
    around = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    if not around:  # the blocks inside are outermost, and forget by themselves
        yield
        return
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
        torch.clear_autocast_cache()  # of the weights as they were


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Takes products of float32 numbers on a GPU in float32, as for convolutions torch does not
    unless it is told to: TF32 is their default. For the whole process."""
    if device.type != "cuda":
        yield
        return
    found: Any = torch.backends  # whose stubs lack some settings
    settings = (found.cudnn.conv, found.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def rounds_products(device: torch.device) -> bool:
    """Whether torch may take products of float32 numbers in TF32 or bfloat16 there."""
    found: Any = torch.backends  # whose stubs lack some settings
    if device.type == "cuda":
        settings = (found.cuda.matmul.fp32_precision, found.cudnn.conv.fp32_precision)
    else:
        settings = (found.mkldnn.matmul.fp32_precision, found.mkldnn.conv.fp32_precision)
    return not {"tf32", "bf16"}.isdisjoint(settings)
