"""In which precision something is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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
def exact_products() -> Iterator[None]:
    """Has products of float32 numbers taken in float32, not in TF32 or bfloat16."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
