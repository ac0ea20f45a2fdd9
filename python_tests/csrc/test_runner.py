"""The runner itself: what it computes, and which faults of a kernel it reports."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch


def test_block_sums(cpu_runner: ModuleType) -> None:
    values = torch.randn(5, 256)
    sums = torch.full((5,), torch.nan)
    cpu_runner.block_sums(values.data_ptr(), 5, sums.data_ptr())
    torch.testing.assert_close(sums, values.sum(dim=1))


def test_empty_grid_is_left_alone(cpu_runner: ModuleType) -> None:
    cpu_runner.block_sums(0, 0, 0)


def copy(launcher: object) -> tuple[torch.Tensor, torch.Tensor]:
    # 16-byte aligned, as torch allocates
    source, target = torch.randn(128), torch.zeros(128)
    assert callable(launcher)
    launcher(source.data_ptr(), target.data_ptr())
    return source, target


def test_async_copy(cpu_runner: ModuleType) -> None:
    source, target = copy(cpu_runner.async_copy)
    assert torch.equal(source, target)


def test_read_before_the_copy_has_arrived_gives_nan(cpu_runner: ModuleType) -> None:
    _, target = copy(cpu_runner.async_copy_without_wait)
    assert target.isnan().any()


def test_copy_into_a_buffer_still_being_read_gives_nan(cpu_runner: ModuleType) -> None:
    _, target = copy(cpu_runner.early_async_copy)
    assert target.isnan().any()


def test_barrier_that_half_a_block_skips_is_an_error(cpu_runner: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="divergent_barrier: a barrier is not reached by all"):
        cpu_runner.divergent_barrier()


def test_more_shared_memory_than_asked_for_is_an_error(cpu_runner: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="more shared memory than its launch asked for"):
        cpu_runner.greedy_shared_memory()


def test_a_launch_that_a_gpu_refuses_is_refused(cpu_runner: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="block_sums: a GPU would refuse this launch"):
        cpu_runner.block_sums(0, 1 << 31, 0)


def test_the_runner_works_after_a_failure(cpu_runner: ModuleType) -> None:
    with pytest.raises(RuntimeError):
        cpu_runner.divergent_barrier()
    test_block_sums(cpu_runner)
