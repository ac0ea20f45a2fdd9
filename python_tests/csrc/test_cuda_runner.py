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


def bulk_copy(runner: ModuleType, rows: int, columns: int, fault: str = "none") -> None:
    """Rectangles of 4 x 32 out of a matrix with NaN between its rows."""
    stride = -(-columns // 4) * 4 + 4
    matrix = torch.full((rows, stride), torch.nan, device=runner.device)
    matrix[:, :columns] = torch.randn(rows, columns)
    count = -(-columns // 32)
    to = torch.full((count, 4, 32), torch.nan, device=runner.device)
    runner.bulk_copy(
        matrix.data_ptr(), rows, columns, stride, getattr(runner.BulkFault, fault), to.data_ptr()
    )
    expected = torch.zeros(4, count * 32)
    expected[: min(rows, 4), :columns] = matrix[:4, :columns]
    assert torch.equal(to.cpu(), expected.view(4, count, 32).transpose(0, 1))


@pytest.mark.parametrize(("rows", "columns"), [(4, 32), (1, 1), (7, 64), (3, 45), (4, 97)])
def test_bulk_copies_fill_with_zeros_outside(runner: ModuleType, rows: int, columns: int) -> None:
    if not runner.bulk_strips_available():
        pytest.skip("this GPU has no bulk copies: they need compute capability 9.0")
    bulk_copy(runner, rows, columns)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_wait", "bulk_copy: a block ended with unfinished bulk copies"),
        ("too_few_bytes", "more bytes than expect_bytes announced"),
        ("no_phase", "expect_bytes: the phase before is not known to be complete"),
    ],
)
def test_faults_of_bulk_copies(cpu_runner: ModuleType, fault: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        bulk_copy(cpu_runner, 4, 32, fault)


def test_bulk_copy_into_a_buffer_still_being_read_gives_nan(cpu_runner: ModuleType) -> None:
    with pytest.raises(AssertionError):
        bulk_copy(cpu_runner, 4, 32, "too_late")


@pytest.mark.parametrize(("offset", "stride"), [(4, 32), (0, 34)])
def test_bulk_copies_refuse_odd_addresses(cpu_runner: ModuleType, offset: int, stride: int) -> None:
    matrix = torch.randn(4, 40)
    with pytest.raises(ValueError, match="16-byte aligned rows"):
        cpu_runner.bulk_copy(
            matrix.data_ptr() + offset, 4, 32, stride, cpu_runner.BulkFault.none, 0
        )


def warpgroup_products(runner: ModuleType, fault: str = "none") -> None:
    """Small integers, whose sums are exact."""
    rows = torch.randint(-8, 9, (192, 64), device=runner.device).bfloat16()
    pair = torch.full((64, 128), torch.nan, device=runner.device)
    single = torch.full((64, 64), torch.nan, device=runner.device)
    runner.warpgroup_products(
        rows.data_ptr(), getattr(runner.ProductFault, fault), pair.data_ptr(), single.data_ptr()
    )
    expected = rows[:64].float() @ rows[64:].float().T
    assert torch.equal(pair, expected)
    assert torch.equal(single, expected[:, :64])


def test_products_of_a_warpgroup(runner: ModuleType) -> None:
    if not runner.warpgroup_product_available():
        pytest.skip("this GPU has no products by warpgroups: they need compute capability 9.0")
    warpgroup_products(runner)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_begin", "begin_products comes before it"),
        ("too_early", "operands were written before their products were"),
        ("unfinished", "warpgroup_products: a thread ended with unfinished products"),
    ],
)
def test_faults_of_products(cpu_runner: ModuleType, fault: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        warpgroup_products(cpu_runner, fault)


def test_sums_read_before_their_products_are_done_are_nan(cpu_runner: ModuleType) -> None:
    with pytest.raises(AssertionError):
        warpgroup_products(cpu_runner, "no_wait")


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
