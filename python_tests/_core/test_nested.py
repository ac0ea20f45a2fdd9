"""Tensors moved between devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repsim_fast._core.nested import to_device
from repsim_fast.data.samples import placed


class Copies(TorchDispatchMode):
    """Where tensors are copied to, and whether anybody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            device = kwargs.get("device") or args[0].device
            self.seen.append((device.type, not kwargs.get("non_blocking", False)))
        return func(*args, **kwargs)


@pytest.mark.parametrize(("source", "target"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_only_a_copy_to_the_cpu_is_waited_for(source: str, target: str) -> None:
    """It has not arrived otherwise when its numbers are read."""
    device = torch.device(target, 0) if target == "cuda" else torch.device(target)
    with torch._subclasses.FakeTensorMode():
        images = torch.empty(2, 3, 4, 4, device=source)
        labels = torch.empty(2, dtype=torch.int64, device=source)
        with Copies() as copies:
            to_device({"x": images, "several": [labels]}, device, copy=True)
            placed(images, labels, device)
            placed(images, torch.empty(2, 10, device=source), device)
    assert copies.seen == [(target, target == "cpu")] * 6
