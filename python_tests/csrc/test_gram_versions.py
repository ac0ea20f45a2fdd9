"""Versions 4 and 7 of the kernel study's Gram, candidates for the operator: strips by bulk copies,
and products by warpgroups."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from python_tests.csrc.test_centered_gram import SINGLE_PASS_SHAPES
from python_tests.support.gram_tiles import (
    DTYPES,
    GRAM_ERROR,
    SINGLE_PASS,
    poisoned,
    random_features,
    single_pass,
)
from repsim_fast.ops.reference import gram as reference


@pytest.fixture
def bulk(study: ModuleType) -> dict[str, Any]:
    if not study.bulk_copies_available():
        pytest.skip("this GPU has no bulk copies: they need compute capability 9.0")
    return {"study": study, "version": 4}


@pytest.fixture
def warpgroups(study: ModuleType) -> dict[str, Any]:
    if not study.warpgroups_available():
        pytest.skip("this GPU has no products by warpgroups: they need compute capability 9.0")
    return {"study": study, "version": 7}


# ---- bulk copies


@pytest.mark.parametrize(("dtype", "operand"), SINGLE_PASS)
@pytest.mark.parametrize("centre", [False, True])
def test_bulk_copies(
    runner: ModuleType, bulk: dict[str, Any], centre: bool, dtype: str, operand: str
) -> None:
    for n, p, splits in SINGLE_PASS_SHAPES:
        x = random_features(n, p, mean=3.0 if centre else 0.0).to(DTYPES[dtype])
        gram = single_pass(runner, x, operand, splits, centre=centre, **bulk)
        expected = reference.centered_gram(x.double(), centering="features" if centre else "none")
        error = (gram.double() - expected.tril()).norm()
        allowed = GRAM_ERROR[operand] * expected.norm() + (1e-12 if n == 1 else 0)
        assert error <= allowed, (n, p, splits)


def test_bulk_copies_to_the_largest_tiles(runner: ModuleType, bulk: dict[str, Any]) -> None:
    for n, operand in [(129, "tf32"), (129, "bfloat16"), (256, "tf32"), (256, "bfloat16")]:
        x = random_features(n, 70, mean=1.0).float()
        expected = reference.centered_gram(x.double(), centering="features").tril()
        gram = single_pass(runner, x, operand, 2, centre=True, **bulk)
        error = (gram.double() - expected).norm()
        assert error <= GRAM_ERROR[operand] * expected.norm(), (n, operand)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_strips_do_not_depend_on_how_they_were_copied(
    runner: ModuleType, bulk: dict[str, Any], dtype: str
) -> None:
    """More strips than stages, a last one of a single feature, more blocks than strips."""
    for n, p, splits in [(40, 64 * 13 + 1, 2), (7, 65, 5)]:
        x = random_features(n, p, mean=1.0).to(DTYPES[dtype])
        one = single_pass(runner, x, "bfloat16", splits, centre=True)
        for version in (2, 4):
            options = {**bulk, "version": version}
            other = single_pass(runner, x, "bfloat16", splits, centre=True, **options)
            assert torch.equal(one, other), (n, p, version)


def test_bulk_copies_refuse_features_they_cannot_read(
    runner: ModuleType, bulk: dict[str, Any]
) -> None:
    x = torch.randn(8, 6, device=runner.device)
    gram = poisoned(10, 16, 16, dtype=torch.float32, device=runner.device)
    sizes = {"n": 8, "p": 6, "row_stride": 6, "tile": 16, "splits": 1}
    with pytest.raises(ValueError, match="not aligned"):
        bulk["study"].gram_version(
            version=4,
            x=x.data_ptr(),
            x_type=runner.ElementType.float32,
            gram=gram.data_ptr(),
            **sizes,
        )


# ---- warpgroups


def centred(lower: Tensor) -> Tensor:
    """H K H of a lower triangle, in float64: the version itself only shifts the columns."""
    return reference.center_gram(lower.double() + lower.double().tril(-1).T, "double")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_warpgroups(runner: ModuleType, warpgroups: dict[str, Any], dtype: str) -> None:
    """Also more blocks than strips, more strips than stages and tiles of zeros."""
    for n, p, splits in [
        *((1, 1, 1), (2, 70, 1), (5, 64, 2)),
        *((9, 300, 3), (65, 65, 1), (256, 200, 2)),
    ]:
        x = random_features(n, p, mean=3.0).to(DTYPES[dtype])
        expected = reference.centered_gram(x.double(), centering="features")
        gram = centred(single_pass(runner, x, "bfloat16", splits, centre=True, **warpgroups))
        allowed = GRAM_ERROR["bfloat16"] * expected.norm() + (1e-12 if n == 1 else 0)
        assert (gram - expected).norm() <= allowed, (n, p, splits)
        plain = single_pass(runner, x, "bfloat16", splits, centre=False, **warpgroups).double()
        wanted = (x.double() @ x.double().T).tril()
        error = (plain - wanted).norm()
        assert error <= GRAM_ERROR["bfloat16"] * wanted.norm(), (n, p, splits)


def test_a_large_mean_costs_warpgroups_no_accuracy(
    runner: ModuleType, warpgroups: dict[str, Any]
) -> None:
    for mean in (10.0, 1e3, -1e5):
        x = random_features(70, 300, mean=mean).float()
        expected = reference.centered_gram(x.double(), centering="features")
        gram = centred(single_pass(runner, x, "bfloat16", 2, centre=True, **warpgroups))
        assert (gram - expected).norm() <= GRAM_ERROR["bfloat16"] * expected.norm(), mean


@pytest.mark.parametrize(
    "wrong", [{"n": 257}, {"tile": 32}, {"row_stride": 6}, {"operand": "tf32"}]
)
def test_warpgroups_refuse_what_they_cannot_read(
    runner: ModuleType, study: ModuleType, wrong: dict[str, Any]
) -> None:
    sizes = {"n": 8, "p": 6, "row_stride": 8, "tile": 64, "splits": 1} | wrong
    operand = getattr(runner.ElementType, sizes.pop("operand", "bfloat16"))
    x = torch.zeros(8, 8, device=runner.device)
    with pytest.raises(ValueError, match="at most 256 aligned rows, tiles of 64"):
        study.gram_version(
            version=7,
            x=x.data_ptr(),
            x_type=runner.ElementType.float32,
            operand_type=operand,
            gram=0,
            **sizes,
        )
