"""Images of bytes as numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from python_tests.support.op_tester import devices
from repsim_fast._core.pixels import unit_range

EVERY = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("device", devices())
def test_every_value_is_rounded_once(device: str) -> None:
    want = (EVERY.double() / 255).float()
    assert torch.equal(unit_range(EVERY.to(device)).cpu(), want)


class Divisors(TorchDispatchMode):
    """What is divided by."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in (torch.ops.aten.div, torch.ops.aten.div_):
            self.seen.append(args[1])
        return func(*args, **(kwargs or {}))


def test_a_gpu_divides() -> None:
    """By a number it would multiply by the inverse, which gives half of the values other bits."""
    inverse = EVERY.float() * (torch.tensor(1.0) / 255)
    assert int((inverse != unit_range(EVERY)).sum()) == 126
    with torch._subclasses.FakeTensorMode():
        images = torch.empty(2, 3, 4, 4, dtype=torch.uint8, device="cuda")
        with Divisors() as divisors:
            assert unit_range(images).device == images.device
    (divisor,) = divisors.seen
    assert isinstance(divisor, Tensor)
    assert divisor.device == images.device
