"""The CUDA attack steps and random starts, executed on the CPU, against the reference in float64.

The operators' own checks and layouts are those of the CPU operators (common/pgd_operators.h), which
ops/test_pgd_steps.py covers; here are the kernels: row lengths around packs, registers,
shared memory and chunks, alignment, dtypes, bounds, and the same random stream as on the CPU.
"""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from repsim_fast.ops.reference import pgd as reference

EPS = 0.3
TOLERANCE = {torch.float32: 2e-7, torch.float64: 1e-13}
L1_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-11}
# Single entries, packs with a rest, a whole warp and more; 3 x 32 x 32; beyond registers (8192
# floats) and beyond shared memory (5120 floats) with one chunk and with several.
SHORT = (1, 3, 4, 37, 128, 3072)
LONG = (8200, 12289)


@pytest.fixture(autouse=True)
def _kernels(cpu_runner: ModuleType) -> None:
    """The operators of torch.ops.repsim_fast_runner."""


def kernels(name: str) -> Any:
    return getattr(torch.ops.repsim_fast_runner, name)


def rows(n: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images with exact zeros and ones, an iterate and a gradient."""
    generator = torch.Generator().manual_seed(1000 * n + d)
    x = (torch.rand(n, d, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    x_adv = (x + 0.1 * torch.randn(n, d, generator=generator, dtype=torch.float64)).clamp(0, 1)
    grad = torch.randn(n, d, generator=generator, dtype=torch.float64)
    grad[:, ::5] = 0
    return x.to(dtype), x_adv.to(dtype), grad.to(dtype)


def doubles(*tensors: Tensor) -> list[Tensor]:
    return [t.double() for t in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linf_has_the_bits_of_the_written_out_step(dtype: torch.dtype) -> None:
    for d, size in itertools.product(SHORT + LONG, (0.05, -0.05)):
        x, x_adv, grad = rows(3, d, dtype)
        got = kernels("pgd_linf_step")(x_adv, grad, x, size, None, EPS, None, 0.0, None, 1.0, None)
        want = reference.pgd_linf_step(x_adv, grad, x, size, EPS, 0.0, 1.0)
        assert torch.equal(got, want), (d, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clip_first", [True, False])
def test_l2(clip_first: bool, dtype: torch.dtype) -> None:
    order = "clip_project" if clip_first else "project_clip"
    eps = torch.tensor([0.01, 0.5, 100.0], dtype=dtype)  # outside, mostly outside, inside
    for d in SHORT + LONG:
        x, x_adv, grad = rows(3, d, dtype)
        got = kernels("pgd_l2_step")(
            x_adv, grad, x, 0.7, None, 0.0, eps, 0.0, None, 1.0, None, clip_first
        )
        want = reference.pgd_l2_step(*doubles(x_adv, grad, x), 0.7, eps.double(), 0.0, 1.0, order)
        assert (got.double() - want).abs().max() <= TOLERANCE[dtype], d


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [*SHORT, 5121, 12289])
def test_l1(d: int, dtype: torch.dtype) -> None:
    x, x_adv, grad = rows(3, d, dtype)
    eps = torch.tensor([0.01, 2.0, 1e6], dtype=dtype)
    for size, fraction in ((1.5, 0.01), (-1.5, 0.3), (1.5, 1.0)):
        got = kernels("pgd_l1_step")(
            x_adv, grad, x, size, None, 0.0, eps, 0.0, None, 1.0, None, fraction, None
        )
        want = reference.pgd_l1_step(
            *doubles(x_adv, grad * (1 if size > 0 else -1), x),
            *(abs(size), eps.double(), 0.0, 1.0, torch.tensor(fraction, dtype=dtype)),
        )
        assert (got.double() - want).abs().max() <= L1_TOLERANCE[dtype]


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
def test_l1_projection(scale: float) -> None:
    x, _, noise = rows(4, 700)
    x_adv = x + scale * noise
    x_adv[3] = x[3]
    eps = torch.tensor([0.0, 0.5, 20.0, 0.5])
    got = kernels("pgd_l1_step")(
        x_adv, None, x, 0.0, None, 0.0, eps, 0.0, None, 1.0, None, 1.0, None
    )
    want = reference.project_l1_box(*doubles(x_adv, x), eps.double(), 0.0, 1.0)
    assert (got.double() - want).abs().max() <= 1e-6
    assert torch.equal(got[0], x[0])


def test_l1_selection_with_ties_few_positive_and_none() -> None:
    x = torch.full((4, 40), 0.5)
    grad = torch.zeros(4, 40)
    grad[0, 3:20] = 2.0  # seventeen tie for the largest four
    grad[1, 7:9] = 1e-42  # fewer than four
    grad[2] = torch.arange(40.0)
    grad[2, 30:] = 35.0  # the fourth ties with nine
    got = kernels("pgd_l1_step")(x, grad, x, 1.0, None, 9.0, None, 0.0, None, 1.0, None, 0.1, None)
    moved = [17, 2, 10, 0]
    assert ((got - x) > 0).sum(dim=1).tolist() == moved
    lengths = (got - x).abs().sum(dim=1)
    assert torch.allclose(lengths, torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize("operator", ["pgd_linf_step", "pgd_l2_step", "pgd_l1_step"])
@pytest.mark.parametrize("side", [6, 53])  # 3 x 53 x 53 = 8427: beyond registers
def test_bounds_and_layouts(operator: str, side: int) -> None:
    layouts = ("contiguous", "channels_last", "unaligned", "expanded gradient")
    for layout, bounds in itertools.product(layouts, ("numbers", "channels", "image")):
        check_bounds_and_layout(operator, side, layout, bounds)


def check_bounds_and_layout(operator: str, side: int, layout: str, bounds: str) -> None:
    shape = (2, 3, side, side)
    x, x_adv, grad = (t.view(shape) for t in rows(2, 3 * side * side))
    if layout == "channels_last":
        x, x_adv, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, x_adv, grad))
    elif layout == "unaligned":
        flat = torch.zeros(1 + 2 * x[0].numel())
        grad = flat[1:].view(shape).copy_(grad)
    elif layout == "expanded gradient":
        grad = torch.tensor(1.0).expand(shape)
    low: float | Tensor = 0.1
    high: float | Tensor = 0.8
    lows = highs = None
    if bounds != "numbers":
        lows = low = torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1).expand(shape[1:])
        highs = high = torch.tensor([1.0, 0.8, 0.9]).view(3, 1, 1).expand(shape[1:])
    if bounds == "image":
        highs = high = high - 0.1 * torch.linspace(0, 1, side)
    x = x.clamp(min=low).clamp(max=high)
    tail = {"pgd_linf_step": (), "pgd_l2_step": (True,), "pgd_l1_step": (0.1, None)}[operator]
    got = kernels(operator)(*(x_adv, grad, x, 0.4, None, EPS, None, 0.1, lows, 0.8, highs), *tail)
    step = getattr(reference, operator)
    low, high = (b.double() if isinstance(b, Tensor) else b for b in (low, high))
    extra = (0.1,) if operator == "pgd_l1_step" else ()
    want = step(*doubles(x_adv, grad, x), 0.4, EPS, low, high, *extra)
    tolerance = 1e-6 if operator == "pgd_l1_step" else 2e-7
    assert (got.double() - want).abs().max() <= tolerance, (layout, bounds)
    assert got.stride() == x.stride(), (layout, bounds)


@pytest.mark.parametrize("operator", ["pgd_linf_step", "pgd_l2_step", "pgd_l1_step"])
def test_in_place_has_the_same_bits(operator: str) -> None:
    for d in (37, 8200):
        x, x_adv, grad = rows(2, d)
        tail = {"pgd_linf_step": (), "pgd_l2_step": (True,), "pgd_l1_step": (0.1, None)}[operator]
        rest = (grad, x, 0.1, None, EPS, None, 0.0, None, 1.0, None, *tail)
        want = kernels(operator)(x_adv, *rest)
        kernels(f"{operator}_")(x_adv, *rest)
        assert torch.equal(x_adv, want)


@pytest.mark.parametrize("operator", ["pgd_linf_step", "pgd_l2_step", "pgd_l1_step"])
@pytest.mark.parametrize("scale", [1e-300, 1e-44, 1e-30, 1e30, 1e300])
def test_the_scale_of_a_gradient_does_not_matter(operator: str, scale: float) -> None:
    x, x_adv, grad = rows(2, 130)
    tail = {"pgd_linf_step": (), "pgd_l2_step": (True,), "pgd_l1_step": (0.1, None)}[operator]
    rest = (x, 0.1, None, EPS, None, 0.0, None, 1.0, None, *tail)
    # A float64 gradient for float32 images, and where it fits a float32 one.
    scaled = grad.double() * scale
    want = kernels(operator)(x_adv, grad, *rest)
    tolerance = 1e-6 if operator == "pgd_l1_step" else 2e-7
    assert (kernels(operator)(x_adv, scaled, *rest) - want).abs().max() <= tolerance
    if 1e-40 < scale < 1e38:
        assert (kernels(operator)(x_adv, scaled.float(), *rest) - want).abs().max() <= tolerance
    wide = (x_adv.double(), scaled, x.double(), *rest[1:])
    assert (kernels(operator)(*wide) - want.double()).abs().max() <= tolerance


def test_rows_with_nan_zero_and_infinite_gradients() -> None:
    for d in (40, 8400):
        x, x_adv, grad = rows(4, d)
        grad[0] = torch.nan
        grad[1] = 0
        grad[2, 3] = torch.inf
        for operator, tail in (("pgd_l2_step", (True,)), ("pgd_l1_step", (0.1, None))):
            got = kernels(operator)(
                x_adv, grad, x, 0.1, None, 1e6, None, 0.0, None, 1.0, None, *tail
            )
            assert torch.equal(got[:2], x_adv[:2])
            assert got.isfinite().all()
            alone = kernels(operator)(
                x_adv[3:], grad[3:], x[3:], 0.1, None, 1e6, None, 0.0, None, 1.0, None, *tail
            )
            assert torch.equal(got[3:], alone)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 5, 128, 300, 9001])
def test_random_starts_are_those_of_the_cpu(norm: str, d: int, dtype: torch.dtype) -> None:
    x = rows(3, d, dtype)[0]
    for seed, offset in ((0, 0), (2**62 + 5, 3), (-7, 2**40)):
        arguments = (norm, EPS, None, 0.0, None, 1.0, None, seed, offset)
        got = kernels("random_start")(x, *arguments)
        cpu = torch.ops.repsim_fast.random_start(x, *arguments)
        if norm == "linf":
            assert torch.equal(got, cpu)
        else:  # sums of the noise in another order, in float64
            assert (got - cpu).abs().max() <= (6e-8 if dtype == torch.float32 else 1e-15)
        in_place = x.clone()
        kernels("random_start_")(in_place, in_place, *arguments)
        assert torch.equal(in_place, got)


def test_many_rows_share_blocks() -> None:
    n = 1030  # more rows than a grid
    x = torch.full((n, 2), 0.5)
    eps = torch.linspace(0, 0.4, n)
    grad = torch.ones(n, 2)
    got = kernels("pgd_linf_step")(x, grad, x, 1.0, None, 0.0, eps, 0.0, None, 1.0, None)
    assert torch.equal(got, x + eps.unsqueeze(1))


def test_empty() -> None:
    for shape in ((0, 3), (3, 0)):
        x = torch.zeros(shape)
        for operator, tail in itertools.product(("pgd_l2_step",), (True, False)):
            got = kernels(operator)(
                x, x.clone(), x, 0.1, None, 1.0, None, 0.0, None, 1.0, None, tail
            )
            assert got.shape == shape
