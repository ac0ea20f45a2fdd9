"""What every operator must satisfy, in one place: devices, tolerances, torch's own checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from repsim_fast import build_info

REQUIRE_CUDA = os.environ.get("REPSIM_REQUIRE_CUDA") == "1"


def cuda_problem() -> str:
    """Why CUDA cannot be tested here, or ""."""
    if not torch.cuda.is_available():
        return "no GPU"
    return build_info()["cuda_missing"]


def devices() -> list[Any]:
    """Parameters for a test on every device; that of CUDA is marked (see conftest.py)."""
    return ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual - expected‖ / ‖expected‖ in float64; NaN never passes a comparison."""
    difference = (actual.double().cpu() - expected.double().cpu()).norm()
    return float(difference / expected.double().cpu().norm().clamp_min(1e-300))


def assert_as_good_as_plain_torch(
    kernel: Tensor, plain: Tensor, truth: Tensor, *, atol: float = 0.0
) -> None:
    """The error of a kernel is at most twice that of plain torch at the same dtype."""
    allowed = 2 * relative_error(plain, truth) + atol
    error = relative_error(kernel, truth)
    assert error <= allowed, f"kernel error {error:.2e}, allowed {allowed:.2e}"


class WithoutKernels:
    """``torch.ops.repsim_fast`` as a device without kernels sees it, for tensors on the CPU."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operator = getattr(torch.ops.repsim_fast, name).default
        # A key with no kernel of its own: torch takes what is registered for all such.
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.MPS)
        return lambda *arguments: operator.redispatch(keys, *arguments)


def take_kernels_of_steps_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the documented functions of attack steps and starts find no kernels."""
    for name in ("pgd_linf_step", "pgd_l2_step", "pgd_l1_step", "random_start"):
        monkeypatch.setattr(f"repsim_fast.ops.pgd.{name}._ops", WithoutKernels())


def opcheck(op: Callable[..., Any], *args: Any) -> None:
    """torch's checks of schema, fake kernel, autograd registration and tracing."""
    torch.library.opcheck(op, args)
