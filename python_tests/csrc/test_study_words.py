"""The study's own words (benchmarks/kernels/portability): what they do, and which faults of a
kernel the runner reports."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from python_tests.csrc.build_runner import STUDY_MODULE, load


@pytest.fixture(scope="session")
def cpu_study(cpu_runner: ModuleType) -> ModuleType:
    return load("cpu", STUDY_MODULE)


def bulk_copy(study: ModuleType, rows: int, columns: int, fault: str = "none") -> None:
    """Rectangles of 4 x 32 out of a matrix with NaN between its rows."""
    stride = -(-columns // 4) * 4 + 4
    matrix = torch.full((rows, stride), torch.nan, device=study.device)
    matrix[:, :columns] = torch.randn(rows, columns)
    count = -(-columns // 32)
    to = torch.full((count, 4, 32), torch.nan, device=study.device)
    study.bulk_copy(
        matrix.data_ptr(), rows, columns, stride, getattr(study.BulkFault, fault), to.data_ptr()
    )
    expected = torch.zeros(4, count * 32)
    expected[: min(rows, 4), :columns] = matrix[:4, :columns]
    assert torch.equal(to.cpu(), expected.view(4, count, 32).transpose(0, 1))


def test_bulk_copies_fill_with_zeros_outside(study: ModuleType) -> None:
    if not study.bulk_copies_available():
        pytest.skip("this GPU has no bulk copies: they need compute capability 9.0")
    for rows, columns in [(4, 32), (1, 1), (7, 64), (3, 45), (4, 97)]:
        bulk_copy(study, rows, columns)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_wait", "bulk_copy: a block ended with unfinished bulk copies"),
        ("too_few_bytes", "more bytes than expect_bytes announced"),
        ("no_phase", "expect_bytes: the phase before is not known to be complete"),
    ],
)
def test_faults_of_bulk_copies(cpu_study: ModuleType, fault: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        bulk_copy(cpu_study, 4, 32, fault)


def test_bulk_copy_into_a_buffer_still_being_read_gives_nan(cpu_study: ModuleType) -> None:
    with pytest.raises(AssertionError):
        bulk_copy(cpu_study, 4, 32, "too_late")


@pytest.mark.parametrize(("offset", "stride"), [(4, 32), (0, 34)])
def test_bulk_copies_refuse_odd_addresses(cpu_study: ModuleType, offset: int, stride: int) -> None:
    matrix = torch.randn(4, 40)
    with pytest.raises(ValueError, match="16-byte aligned rows"):
        cpu_study.bulk_copy(matrix.data_ptr() + offset, 4, 32, stride, cpu_study.BulkFault.none, 0)


def warpgroup_products(study: ModuleType, fault: str = "none") -> None:
    """Small integers, whose sums are exact."""
    rows = torch.randint(-8, 9, (192, 64), device=study.device).bfloat16()
    pair = torch.full((64, 128), torch.nan, device=study.device)
    single = torch.full((64, 64), torch.nan, device=study.device)
    study.warpgroup_products(
        rows.data_ptr(), getattr(study.ProductFault, fault), pair.data_ptr(), single.data_ptr()
    )
    expected = rows[:64].float() @ rows[64:].float().T
    assert torch.equal(pair, expected)
    assert torch.equal(single, expected[:, :64])


def test_products_of_a_warpgroup(study: ModuleType) -> None:
    if not study.warpgroups_available():
        pytest.skip("this GPU has no products by warpgroups: they need compute capability 9.0")
    warpgroup_products(study)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_begin", "begin_products comes before it"),
        ("too_early", "operands were written before their products were"),
        ("unfinished", "warpgroup_products: a thread ended with unfinished products"),
    ],
)
def test_faults_of_products(cpu_study: ModuleType, fault: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        warpgroup_products(cpu_study, fault)


def test_sums_read_before_their_products_are_done_are_nan(cpu_study: ModuleType) -> None:
    with pytest.raises(AssertionError):
        warpgroup_products(cpu_study, "no_wait")
