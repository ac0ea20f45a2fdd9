"""The CUDA kernels of the centred Gram against float64 torch, on the CPU and on a GPU if any."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from python_tests.support.gram_tiles import (
    DTYPES,
    GRAM_ERROR,
    OPERANDS,
    SINGLE_PASS,
    aligned,
    lower_triangle,
    on_device,
    poisoned,
    random_features,
    single_pass,
)
from repsim_fast.ops.reference import gram as reference

CENTERINGS = ("none", "features", "double", "unbiased")
# Largest relative error of rounding to an operand type.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


def storage(operand: str) -> torch.dtype:
    return torch.float32 if operand == "tf32" else DTYPES[operand]


# ---- step 1: features


def center(runner: ModuleType, x: Tensor, operand: str, *, centre: bool = True) -> Tensor:
    n, p = x.shape
    x = on_device(runner, x)
    dtype = next(name for name, value in DTYPES.items() if value == x.dtype)
    operand_type = getattr(runner.ElementType, operand)
    pitch = runner.feature_pitch(p, operand_type)
    features = poisoned(n, pitch, dtype=storage(operand), device=x.device)
    runner.center_features(
        x=x.data_ptr(),
        x_type=getattr(runner.ElementType, dtype),
        n=n,
        p=p,
        row_stride=x.stride(0),
        column_stride=x.stride(1),
        centre=centre,
        features=features.data_ptr(),
        operand_type=operand_type,
    )
    return features.cpu()


@pytest.mark.parametrize(("dtype", "operand"), OPERANDS)
def test_features_are_centred_and_padded(runner: ModuleType, dtype: str, operand: str) -> None:
    for n, p in [(1, 1), (2, 3), (5, 32), (8, 33), (67, 70)]:
        x = random_features(n, p, mean=2.0).to(DTYPES[dtype])
        features = center(runner, x, operand)
        expected = x.double() - x.double().mean(dim=0)
        # The subtraction is done in float32 (float64), relative to the spread of the column.
        working = ROUNDING["float64" if dtype == "float64" else "float32"]
        spread = 8 * working * expected.abs().amax(dim=0)
        bound = expected.abs() * ROUNDING[operand] + spread + 1e-300
        assert ((features[:, :p].double() - expected).abs() <= bound).all(), (n, p)
        assert (features[:, p:] == 0).all(), (n, p)
        assert features.stride(0) * features.element_size() % 64 == 0, (n, p)


def test_features_without_centring_are_only_rounded(runner: ModuleType) -> None:
    for dtype, operand in OPERANDS:
        x = random_features(9, 40, mean=1.0).to(DTYPES[dtype])
        features = center(runner, x, operand, centre=False)[:, :40]
        if operand == "tf32":
            bits = x.float().view(torch.int32)
            rounded = (bits + 0x1000) & ~0x1FFF
            assert torch.equal(features.view(torch.int32), rounded), dtype
        else:
            assert torch.equal(features, x.to(storage(operand))), (dtype, operand)


def test_a_large_mean_costs_no_accuracy(runner: ModuleType) -> None:
    for mean in (0.0, 1.0, 10.0, 100.0, -1e4):
        x = random_features(64, 48, mean=mean).float()
        expected = x.double() - x.double().mean(dim=0)
        error = (center(runner, x, "float32")[:, :48].double() - expected).abs().max()
        assert error < 1e-6, mean


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every second column": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "every third row": lambda x: x.repeat_interleave(3, dim=0)[::3],
    "a corner of a larger matrix": lambda x: torch.nn.functional.pad(x, (3, 5, 1, 2))[1:-2, 3:-5],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_of_any_layout(runner: ModuleType, layout: str) -> None:
    x = random_features(13, 37).float()
    strided = LAYOUTS[layout](x)
    assert torch.equal(strided, x)
    assert strided.stride() != x.stride()
    assert torch.equal(center(runner, strided, "float32"), center(runner, x, "float32"))


def test_one_row_for_all_samples(runner: ModuleType) -> None:
    x = random_features(1, 20).float().expand(6, 20)
    assert (center(runner, x, "float32") == 0).all()


# ---- step 2: products


def product(runner: ModuleType, x: Tensor, operand: str, tile: int, splits: int) -> Tensor:
    """Lower triangle of x xᵀ with the operands rounded; upper part zero."""
    features = on_device(runner, center(runner, x, operand, centre=False))
    n, pitch = features.shape
    accumulator = torch.float64 if operand == "float64" else torch.float32
    rows = -(-n // tile)
    tiles = poisoned(
        splits, rows * (rows + 1) // 2, tile, tile, dtype=accumulator, device=runner.device
    )
    runner.triangle_product(
        features=features.data_ptr(),
        operand_type=getattr(runner.ElementType, operand),
        n=n,
        pitch=pitch,
        tile=tile,
        splits=splits,
        gram=tiles.data_ptr(),
    )
    return lower_triangle(tiles[0].cpu(), n)


@pytest.mark.parametrize(
    ("operand", "tile"),
    [("float64", 64), *itertools.product(("float32", "tf32", "bfloat16"), (64, 128))],
)
def test_products(runner: ModuleType, operand: str, tile: int) -> None:
    for n, p, splits in [
        *((1, 1, 1), (3, 5, 2), (64, 96, 1)),
        *((65, 200, 3), (130, 33, 2), (193, 64, 1)),
    ]:
        x = random_features(n, p).to(torch.float64 if operand == "float64" else torch.float32)
        rounded = center(runner, x, operand, centre=False)[:, :p].double()
        expected = (rounded @ rounded.T).tril()
        # The operands are exact here: what is left is the accumulation's rounding.
        magnitude = rounded.abs() @ rounded.abs().T
        accumulation = ROUNDING["float64" if operand == "float64" else "float32"]
        error = (product(runner, x, operand, tile, splits).double() - expected).abs()
        assert (error <= p * accumulation * magnitude + 1e-300).all(), (n, p, splits)


def test_more_splits_than_features(runner: ModuleType) -> None:
    x = random_features(5, 3).float()
    torch.testing.assert_close(product(runner, x, "float32", 64, 7), (x @ x.T).tril())


def test_splits_are_summed_in_the_same_order_each_time(runner: ModuleType) -> None:
    x = random_features(70, 300).float()
    first = product(runner, x, "float32", 64, 4)
    assert torch.equal(first, product(runner, x, "float32", 64, 4))


def test_non_finite_features_reach_their_rows_only(runner: ModuleType) -> None:
    x = random_features(6, 40).float()
    x[2, 7], x[4, 9] = torch.nan, torch.inf
    finite = product(runner, x, "bfloat16", 64, 1).isfinite()
    expected = torch.ones(6, 6, dtype=torch.bool)
    expected[[2, 4]] = False
    expected[:, [2, 4]] = False
    assert torch.equal(finite.tril(), expected.tril())


# ---- steps 1 and 2 in a single pass

SINGLE_PASS_SHAPES = [  # n, p, splits
    *((1, 1, 1), (5, 3, 2), (16, 64, 1), (33, 200, 3)),
    *((64, 31, 1), (65, 130, 1), (128, 260, 2)),
]


@pytest.mark.parametrize(("dtype", "operand"), SINGLE_PASS)
@pytest.mark.parametrize("centre", [False, True])
def test_single_pass(runner: ModuleType, centre: bool, dtype: str, operand: str) -> None:
    for n, p, splits in SINGLE_PASS_SHAPES:
        x = random_features(n, p, mean=3.0 if centre else 0.0).to(DTYPES[dtype])
        gram = single_pass(runner, x, operand, splits, centre=centre)
        expected = reference.centered_gram(x.double(), centering="features" if centre else "none")
        error = (gram.double() - expected.tril()).norm()
        allowed = GRAM_ERROR[operand] * expected.norm() + (1e-12 if n == 1 else 0)
        assert error <= allowed, (n, p, splits)


@pytest.mark.parametrize("operand", ["tf32", "bfloat16"])
@pytest.mark.parametrize("n", [129, 256])
def test_single_pass_with_its_largest_tiles(runner: ModuleType, n: int, operand: str) -> None:
    x = random_features(n, 70, mean=1.0).float()
    expected = reference.centered_gram(x.double(), centering="features").tril()
    gram = single_pass(runner, x, operand, 2, centre=True)
    assert (gram.double() - expected).norm() <= GRAM_ERROR[operand] * expected.norm()


def test_single_pass_in_float32_is_as_accurate_as_float32(runner: ModuleType) -> None:
    x = random_features(60, 2000).float()
    expected = (x.double() @ x.double().T).tril()
    error = (single_pass(runner, x, "float32", 4, centre=False).double() - expected).norm()
    assert error <= 2 * ((x @ x.T).tril().double() - expected).norm()


def test_a_large_mean_costs_the_single_pass_no_accuracy(runner: ModuleType) -> None:
    for mean in (10.0, 100.0, -1e4):
        x = random_features(40, 300, mean=mean).float()
        expected = reference.centered_gram(x.double(), centering="features").tril()
        error = (single_pass(runner, x, "float32", 2, centre=True).double() - expected).norm()
        assert error <= 1e-6 * expected.norm(), mean


def test_single_pass_refuses_features_it_cannot_read(runner: ModuleType) -> None:
    x = torch.randn(8, 6, device=runner.device)
    gram = poisoned(10, 16, 16, dtype=torch.float32, device=runner.device)
    sizes = {"n": 8, "p": 6, "row_stride": 6, "tile": 16, "splits": 1, "centre": True}
    types = {"x_type": runner.ElementType.float32, "operand_type": runner.ElementType.tf32}
    with pytest.raises(ValueError, match="not aligned"):
        runner.single_pass_product(x=x.data_ptr(), gram=gram.data_ptr(), **sizes, **types)


# ---- step 3: finish


@pytest.mark.parametrize("centering", ["none", "double", "unbiased"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finish_of_a_plain_matrix(
    runner: ModuleType, dtype: torch.dtype, packed: bool, centering: str
) -> None:
    few = () if centering == "unbiased" else (1, 2)  # it divides by n - 2
    for n in (*few, 3, 4, 31, 32, 33, 65, 290):
        symmetric = random_features(n, n)
        symmetric = (symmetric + symmetric.T).to(dtype)
        above = torch.ones(n, n, dtype=torch.bool).triu(diagonal=1)
        lower = on_device(runner, symmetric.masked_fill(above, torch.nan))  # must not be read
        entries = n * (n - 1) // 2 if centering == "unbiased" else n * (n + 1) // 2
        shape = (entries,) if packed else (n, n)
        out = poisoned(*shape, dtype=dtype, device=runner.device)
        row_sums = poisoned(n, dtype=torch.float64, device=runner.device)
        runner.finish_gram(
            gram=lower.data_ptr(),
            wide=dtype == torch.float64,
            n=n,
            tile=n,
            centering=getattr(runner.GramCentering, centering),
            row_sums=row_sums.data_ptr(),
            packed=packed,
            out=out.data_ptr(),
        )
        expected = reference.center_gram(symmetric.double(), centering)
        if packed:
            expected = reference.pack_gram(expected, centering)
        error = (out.cpu().double() - expected).abs()
        tolerance = 1e-13 if dtype == torch.float64 else 1e-6
        assert (error <= tolerance * (expected.abs() + 4)).all(), n


# ---- the operator


def run_op(runner: ModuleType, x: Tensor, centering: str, packed: bool, precision: str) -> Tensor:
    on_cpu = runner.device.type == "cpu"
    operators = torch.ops.repsim_fast_runner if on_cpu else torch.ops.repsim_fast
    gram: Tensor = operators.centered_gram(on_device(runner, x), centering, packed, precision)
    return gram.cpu()


def expected_gram(x: Tensor, centering: str, packed: bool) -> Tensor:
    return reference.centered_gram(x.double(), centering=centering, packed=packed)


@pytest.mark.parametrize(("dtype", "precision"), OPERANDS)
@pytest.mark.parametrize("centering", CENTERINGS)
def test_operator(runner: ModuleType, centering: str, dtype: str, precision: str) -> None:
    shapes = [(4, 1), (5, 130), (33, 17), (70, 260)]
    for (n, p), packed in itertools.product(shapes, (False, True)):
        case = n, p, packed
        x = random_features(n, p, mean=0.0 if centering == "none" else 3.0).to(DTYPES[dtype])
        gram = run_op(runner, x, centering, packed, precision)
        expected = expected_gram(x, centering, packed)
        assert gram.dtype == (torch.float64 if dtype == "float64" else torch.float32)
        assert gram.shape == expected.shape, case
        error = (gram.double() - expected).norm()
        assert error <= GRAM_ERROR[precision] * expected.norm(), case
        if not packed:
            assert torch.equal(gram, gram.T), case


@pytest.mark.parametrize("centering", CENTERINGS)
def test_operator_with_few_samples(runner: ModuleType, centering: str) -> None:
    for n in (1, 2, 3):
        x = random_features(n, 6).float()
        if centering == "unbiased":
            with pytest.raises(RuntimeError, match=f"needs at least 4 samples, got {n}"):
                run_op(runner, x, centering, False, "float32")
        else:
            torch.testing.assert_close(
                run_op(runner, x, centering, False, "float32").double(),
                expected_gram(x, centering, False),
                rtol=1e-6,
                atol=1e-6,
            )


@pytest.mark.parametrize("centering", CENTERINGS)
def test_operator_with_nothing_to_do(runner: ModuleType, centering: str) -> None:
    assert run_op(runner, torch.empty(0, 5), centering, False, "float32").shape == (0, 0)
    assert run_op(runner, torch.empty(0, 5), centering, True, "float32").shape == (0,)
    assert torch.equal(
        run_op(runner, torch.empty(6, 0), centering, False, "float32"), torch.zeros(6, 6)
    )


@pytest.mark.parametrize("centering", ["features", "double", "unbiased"])
def test_operator_is_blind_to_the_mean(runner: ModuleType, centering: str) -> None:
    for mean in (1.0, 10.0, 100.0):
        x = random_features(40, 300, mean=mean).float()
        expected = expected_gram(x, centering, True)
        error = (run_op(runner, x, centering, True, "float32") - expected).norm()
        assert error < 1e-6 * expected.norm(), mean


def test_operator_by_the_vendor_library(runner: ModuleType) -> None:
    x = random_features(1100, 3, mean=5.0)
    plan = plan_of(runner, 1100, 3, "float64")
    assert plan.products == runner.GramProducts.vendor
    assert plan.panels > 1
    gram, expected = (
        run_op(runner, x, "unbiased", False, "float64"),
        expected_gram(x, "unbiased", False),
    )
    assert (gram - expected).norm() <= 1e-14 * expected.norm()
    assert torch.equal(gram, gram.T)


@pytest.mark.parametrize(
    ("x", "words", "message"),
    [
        (torch.zeros(4), ("none", "float32"), "x: expected a matrix"),
        (torch.zeros(4, 2, dtype=torch.int32), ("none", "float32"), "x: expected float64"),
        (torch.zeros(4, 2), ("rows", "float32"), "centering: expected .* got rows"),
        (torch.zeros(4, 2), ("none", "int8"), "precision: expected .* got int8"),
        (torch.zeros(4, 2), ("none", "float64"), "precision: float64 does not go with"),
        (torch.zeros(4, 2).double(), ("none", "tf32"), "precision: tf32 does not go with"),
    ],
)
def test_operator_errors(
    runner: ModuleType, x: Tensor, words: tuple[str, str], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        run_op(runner, x, words[0], False, words[1])


@pytest.mark.parametrize("centering", CENTERINGS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_operator_in_a_single_pass(runner: ModuleType, dtype: str, centering: str) -> None:
    """The same result as by the other way, to which an odd address leads."""
    x = aligned(random_features(40, 100).to(DTYPES[dtype]))
    shifted = poisoned(40, 113, dtype=x.dtype)[:, 1:101]
    shifted.copy_(x)
    one, other = (run_op(runner, y, centering, True, "bfloat16") for y in (x, shifted))
    assert (one - other).norm() <= 2.0**-8 * other.norm()
    expected = expected_gram(x, centering, True)
    assert (one.double() - expected).norm() <= GRAM_ERROR["bfloat16"] * expected.norm()


# ---- plan


def plan_of(
    runner: ModuleType,
    n: int,
    p: int,
    operand: str,
    *,
    dtype: str = "float64",
    layout: bool = False,
    multiprocessors: int = 132,
    shared_kib: int = 227,
) -> Any:
    return runner.plan_gram(
        n=n,
        p=p,
        x_type=getattr(runner.ElementType, dtype),
        operand_type=getattr(runner.ElementType, operand),
        single_pass_layout=layout,
        multiprocessors=multiprocessors,
        shared_bytes=shared_kib << 10,
    )


PLANNED = [(*types, layout) for types in OPERANDS for layout in (False, True)]


def test_plan(cpu_runner: ModuleType) -> None:
    kind = cpu_runner.GramProducts
    sizes = itertools.product((1, 64, 65, 256, 257, 512, 1024, 5000), (1, 100, 65536, 800_000))
    for (dtype, operand, layout), (n, p) in itertools.product(PLANNED, list(sizes)):
        case = dtype, operand, layout, n, p
        plan = plan_of(cpu_runner, n, p, operand, dtype=dtype, layout=layout)
        assert plan.splits >= 1, case
        if plan.products == kind.single_pass:
            assert layout, case
            assert n <= 256, case
            assert 4 * plan.tile >= n, case
            assert plan.splits <= 2 * 132, case
        elif plan.products == kind.vendor:
            assert operand in ("float64", "bfloat16"), case
            assert plan.tile == n, case
            assert plan.panels >= 2, case
        else:
            rows = -(-n // plan.tile)
            assert plan.tiles == rows * (rows + 1) // 2, case
            partial_bytes = plan.splits * plan.tiles * plan.tile**2 * 4
            assert plan.splits == 1 or partial_bytes <= 64 << 20, case


def test_plan_keeps_the_whole_card_busy(cpu_runner: ModuleType) -> None:
    single_pass = cpu_runner.GramProducts.single_pass
    for dtype, operand, layout in PLANNED:
        plan = plan_of(cpu_runner, 128, 65536, operand, dtype=dtype, layout=layout)
        blocks_per_split = 1 if plan.products == single_pass else plan.tiles
        assert plan.splits * blocks_per_split >= 132, (dtype, operand, layout)


def test_a_single_pass_has_the_fewest_splits_that_take_no_longer(cpu_runner: ModuleType) -> None:
    for n, p, dtype in itertools.product(
        (64, 128, 256), (1, 640, 10_000, 65536, 800_000), ("float32", "bfloat16")
    ):
        plan = plan_of(cpu_runner, n, p, "bfloat16", dtype=dtype, layout=True)
        strips = -(-p * DTYPES[dtype].itemsize // 128)
        most_blocks = 132 if plan.tile == 64 else 264
        longest = -(-strips // most_blocks)
        assert plan.splits <= most_blocks, (n, p, dtype)
        assert -(-strips // plan.splits) == longest, (n, p, dtype)
        fewer = plan.splits - 1
        assert fewer == 0 or -(-strips // fewer) > longest, (n, p, dtype)
    # A partial Gram of 164 KB each.
    assert plan_of(cpu_runner, 256, 10_000, "bfloat16", dtype="bfloat16", layout=True).splits == 79


def test_plan_takes_a_single_pass_where_it_can(cpu_runner: ModuleType) -> None:
    for n, layout in itertools.product((64, 300), (False, True)):
        plan = plan_of(cpu_runner, n, 4096, "bfloat16", dtype="float32", layout=layout)
        taken = plan.products == cpu_runner.GramProducts.single_pass
        assert taken == (layout and n == 64), (n, layout)


@pytest.mark.parametrize(("shared_kib", "largest"), [(227, 256), (163, 256), (99, 128), (48, 0)])
def test_plan_asks_for_no_more_shared_memory_than_there_is(
    runner: ModuleType, shared_kib: int, largest: int
) -> None:
    """The limits of compute capability 9.0, 8.0 and 8.6, and one that has no room at all."""
    for n in (64, 128, 256):
        plan = plan_of(
            runner, n, 4096, "bfloat16", dtype="bfloat16", layout=True, shared_kib=shared_kib
        )
        assert (plan.products == runner.GramProducts.single_pass) == (n <= largest)


def test_triangle_position_is_exact(runner: ModuleType) -> None:
    assert [runner.triangle_position(i) for i in range(6)] == [
        *((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))
    ]
    for row in (2**20, 2**25 + 1, 2**31 - 1):
        start = row * (row + 1) // 2
        assert runner.triangle_position(start) == (row, 0)
        assert runner.triangle_position(start - 1) == (row - 1, row - 1)
        assert runner.triangle_position(start + row) == (row, row)
