"""The runner itself: what it computes, and which faults of a kernel it reports."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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


def launch_with(module: ModuleType, sizes: Sequence[int]) -> None:
    out = torch.zeros(1, dtype=torch.int32, device=module.device)
    for size in sizes:
        module.large_shared_memory(size, out.data_ptr())
        assert out.item() == 1
        out.zero_()


def most_shared_bytes(module: ModuleType) -> int:
    if module.device.type == "cpu":
        return 227 << 10
    most: int = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    return most


def test_host_threads_may_ask_for_shared_memory_up_and_down(runner: ModuleType) -> None:
    kib = 1024
    up = [1, 48 * kib, 48 * kib + 1, 64 * kib, most_shared_bytes(runner)]
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(launch_with, runner, up[:: (-1) ** i] * 20) for i in range(8)]
    for run in runs:
        run.result()


def test_a_lowered_limit_is_an_error(runner: ModuleType) -> None:
    """What made launches of several host threads fail now and then: see shared_limits.h."""
    launch_with(runner, [60 << 10])
    runner.lower_shared_limit(50 << 10)
    try:
        launch_with(runner, [50 << 10])
        with pytest.raises(RuntimeError, match="CUDA kernel large_shared_memory: "):
            launch_with(runner, [60 << 10])
    finally:
        runner.lower_shared_limit(most_shared_bytes(runner))


def test_the_runner_works_after_a_failure(cpu_runner: ModuleType) -> None:
    with pytest.raises(RuntimeError):
        cpu_runner.divergent_barrier()
    test_block_sums(cpu_runner)
