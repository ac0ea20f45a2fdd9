"""Precisions that a device multiplies natively."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from repsim_fast._core.precision import float32_products, native_half, rounds_products

CPU = torch.device("cpu")


def _processor(monkeypatch: pytest.MonkeyPatch, *, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (True, True)])
def test_a_processor_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool
) -> None:
    _processor(monkeypatch, avx512=avx512, amx=amx)
    assert native_half(CPU) == torch.bfloat16


def test_others(monkeypatch: pytest.MonkeyPatch) -> None:
    _processor(monkeypatch, avx512=False, amx=False)
    assert native_half(CPU) is None
    assert native_half(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("asked", "coarse"), [("highest", False), ("high", True), ("medium", True)]
)
def test_products_that_torch_may_round(asked: str, coarse: bool) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(asked)
    try:
        assert rounds_products(CPU) == coarse
    finally:
        torch.set_float32_matmul_precision(before)


def _gpu_settings() -> tuple[str, str]:
    backends: Any = torch.backends
    return backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize("asked", ["highest", "high"])
def test_no_tf32_for_a_while(asked: str) -> None:
    """The settings are there without a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(asked)
    try:
        settings = _gpu_settings()
        assert "tf32" in settings  # convolutions, unless told otherwise
        with float32_products(CPU):
            assert _gpu_settings() == settings
        within = []
        with contextlib.suppress(KeyError), float32_products(torch.device("cuda")):
            within.append(_gpu_settings())
            raise KeyError
        assert within == [("ieee", "ieee")]
        assert _gpu_settings() == settings
        assert torch.get_float32_matmul_precision() == asked
    finally:
        torch.set_float32_matmul_precision(before)
