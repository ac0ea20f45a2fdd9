"""Buffers come back, whichever way a model changes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim_fast._core.buffers import KeptBuffers, buffers_kept


class Holder(nn.Module):
    """A buffer, and none where one may come."""

    count: Tensor
    later: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor([1.0, float("nan")]))
        self.register_buffer("later", None)


def in_place(holder: Holder) -> None:
    holder.count.add_(1)


def behind_its_back(holder: Holder) -> None:
    holder.count.data.add_(1)


def by_another(holder: Holder) -> None:
    holder.count = holder.count + 1


def out_of_nothing(holder: Holder) -> None:
    holder.later = torch.ones(2)


CHANGES = [in_place, behind_its_back, by_another, out_of_nothing]


@pytest.mark.parametrize("change", CHANGES)
def test_all_are_put_back(change: Callable[[Holder], None]) -> None:
    holder = Holder()
    count, value = holder.count, holder.count.clone()
    with buffers_kept([holder]):
        change(holder)
    assert holder.count is count
    assert holder.later is None
    assert torch.equal(holder.count.nan_to_num(), value.nan_to_num())


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_found_once_looked_for_and_put_back_each_time(
    change: Callable[[Holder], None],
) -> None:
    holder = Holder()
    kept = KeptBuffers([holder])
    assert kept.look() == []
    change(holder)
    name = "Holder.later" if change is out_of_nothing else "Holder.count"
    assert kept.look() == [name]
    for _ in range(3):
        kept.put_changed_back()
        assert kept.look() == []
        change(holder)
        assert kept.look() == [name]


def test_what_does_not_change_is_not_written_to() -> None:
    holder = Holder()
    kept = KeptBuffers([holder])
    before = holder.count._version
    assert kept.look() == []
    kept.put_changed_back()
    assert holder.count._version == before
    holder.count.data.zero_()
    kept.put_changed_back()
    assert holder.count[0] == 0, "what torch does not count is seen by looking alone"


def test_buffers_of_inference_mode() -> None:
    with torch.inference_mode():
        holder = Holder()
        kept = KeptBuffers([holder])
        holder.count.add_(1)
    kept.put_changed_back()
    assert holder.count[0] == 1
