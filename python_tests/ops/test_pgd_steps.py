"""Attack steps, projections and random starts: truth in float64, and what peers get wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from python_tests.support.op_tester import devices, opcheck
from repsim_fast import ops
from repsim_fast.ops.reference import pgd as reference

STEPS = ("linf", "l2", "l1")
SHAPE = (6, 3, 7, 5)
EPS = 0.3
ORDERS = ("clip_project", "project_clip")
# float32: rounding of pixels near 1, and for L1 that of the threshold. ATTACKS 7.
TOLERANCE = {"linf": 0.0, "l2": 2e-7, "l1": 1e-6}


def step(norm: str) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = getattr(ops, f"pgd_{norm}_step")
    return function


def project(norm: str) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = getattr(ops, f"project_{norm}_box")
    return function


def pixels(*shape: int, seed: int = 0) -> Tensor:
    """Float64 images with many exact zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)


def noise(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def problem(
    *shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Iterate, gradient with zeros, clean images."""
    x, grad = pixels(*shape), noise(*shape)
    x_adv = (x + 0.1 * noise(*shape, seed=2)).clamp(0, 1)
    grad[grad.abs() < 0.1] = 0
    return tuple(t.to(dtype).to(device) for t in (x_adv, grad, x))  # type: ignore[return-value]


def lengths(delta: Tensor, norm: str) -> Tensor:
    p = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta.double().flatten(1), p, dim=1)


# ---- truth


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (4, 3, 32, 32), (2, 3, 70, 91)])
def test_linf_is_the_written_out_step_bit_for_bit(device, dtype, shape):
    x_adv, grad, x = problem(*shape, dtype=dtype, device=device)
    for size, eps in ((2 / 255, 8 / 255), (0.5, 0.1), (1.0, 3.0)):
        moved = x_adv + size * grad.sign()
        clipped = torch.minimum(torch.maximum(moved, x - eps), x + eps).clamp(0, 1)
        assert torch.equal(ops.pgd_linf_step(x_adv, grad, x, step_size=size, eps=eps), clipped)
        moved = torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(0, 1)
        assert torch.equal(ops.project_linf_box(x_adv, x, eps=eps), moved)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(3, 1), (3, 7), (3, 3, 32, 32), (3, 3, 70, 91)])
def test_l2(device, dtype, order, shape):
    x_adv, grad, x = problem(*shape, dtype=dtype, device=device)
    eps = torch.tensor([0.05, 0.8, 100.0], dtype=dtype, device=device)  # rows outside and inside
    got = ops.pgd_l2_step(x_adv, grad, x, step_size=0.7, eps=eps, order=order)
    wide = [t.double() for t in (x_adv, grad, x)]
    want = reference.pgd_l2_step(*wide, 0.7, eps.double(), 0.0, 1.0, order)
    tolerance = TOLERANCE["l2"] if dtype == torch.float32 else 1e-13
    assert (got.double() - want).abs().max() <= tolerance


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l1(device, dtype):
    tolerance = TOLERANCE["l1"] if dtype == torch.float32 else 1e-11
    eps = torch.tensor([0.05, 3.0, 1e6], dtype=dtype, device=device)
    for shape in ((3, 1), (3, 7), (3, 3, 32, 32), (3, 3, 70, 91)):
        x_adv, grad, x = problem(*shape, dtype=dtype, device=device)
        wide = [t.double() for t in (x_adv, grad, x)]
        for fraction in (0.001, 0.05, 0.5, 1.0):
            got = ops.pgd_l1_step(x_adv, grad, x, step_size=1.3, eps=eps, fraction=fraction)
            share = torch.tensor(fraction, dtype=dtype)  # as the state holds it
            want = reference.pgd_l1_step(*wide, 1.3, eps.double(), 0.0, 1.0, share)
            assert (got.double() - want).abs().max() <= tolerance, (shape, fraction)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 5, 300, 3072])
def test_l1_projection_is_that_of_a_bisection_in_float64(device, dtype, d):
    x = pixels(24, d).to(dtype).to(device)
    eps = torch.logspace(-3, 4, 24, dtype=dtype, device=device)  # outside, inside, at corners
    eps[0] = 0
    for scale in (1e-3, 0.05, 1.0, 1e3):
        x_adv = x + (scale * noise(24, d)).to(dtype).to(device)
        x_adv[3] = x[3]
        got = ops.project_l1_box(x_adv, x, eps=eps)
        want = reference.project_l1_box(x_adv.double(), x.double(), eps.double(), 0.0, 1.0)
        # 1e-6, or where perturbations are far larger than images the rounding of x_adv - x.
        tolerance = torch.finfo(dtype).eps * max(8.0, float((x_adv - x).abs().max()))
        assert (got.double() - want).abs().max() <= tolerance, scale
        assert got.min() >= 0, scale
        assert got.max() <= 1, scale
        assert torch.equal(got[0], x[0]), scale


@pytest.mark.parametrize("case", ["ties", "one entry", "no room", "corner", "huge", "denormal"])
def test_l1_projection_of_awkward_rows(case):
    x = torch.full((1, 6), 0.5, dtype=torch.float64)
    u = {
        "ties": [0.3, -0.3, 0.3, -0.3, 0.3, -0.3],
        "one entry": [0.0, 0.0, 5.0, 0.0, 0.0, 0.0],
        "no room": [0.4, 0.3, 0.2, -0.1, 0.0, 0.1],
        "corner": [9.0, 9.0, -9.0, 9.0, -9.0, 0.001],
        "huge": [1e6, -1e6, 1e5, 3.0, 2.0, 1.0],
        "denormal": [1e-42, -1e-42, 1e-41, 0.0, 3e-42, 1e-42],
    }[case]
    if case == "no room":
        x = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    if case == "denormal":
        x = torch.zeros(1, 6, dtype=torch.float64)
    x_adv = x + torch.tensor([u], dtype=torch.float64)
    for eps in (0.0, 1e-42, 0.25, 0.7, 2.4, 100.0):
        for dtype in (torch.float32, torch.float64):
            state, center = x_adv.to(dtype), x.to(dtype)
            got = ops.project_l1_box(state, center, eps=eps)
            want = reference.project_l1_box(state.double(), center.double(), eps, 0.0, 1.0)
            assert (got.double() - want).abs().max() <= 1e-6, (eps, dtype)


def test_l1_direction_with_ties_and_few_positive_gradients():
    x = torch.full((5, 40), 0.5)
    grad = torch.zeros(5, 40)
    grad[0, 3:20] = 2.0  # seventeen tie for the largest four
    grad[1, 7:9] = 1e-42  # fewer than four
    grad[2] = torch.arange(40.0)
    grad[2, 30:] = 35.0  # the fourth ties with nine
    grad[3, 0] = -1.0
    moved = ops.pgd_l1_step(x, grad, x, step_size=1.0, eps=9.0, fraction=0.1) - x
    assert (moved != 0).sum(dim=1).tolist() == [17, 2, 10, 1, 0]
    assert torch.allclose(moved.abs().sum(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0]))
    assert moved[3, 0] == -0.5  # the box


def test_l1_step_passes_over_entries_that_the_box_holds():
    x = torch.tensor([[1.0, 0.0, 0.5, 0.5]])
    grad = torch.tensor([[9.0, -8.0, 1.0, 0.5]])
    moved = ops.pgd_l1_step(x, grad, x, step_size=0.25, eps=1.0, fraction=0.25)
    assert torch.equal(moved, torch.tensor([[1.0, 0.0, 0.75, 0.5]]))
    moved = ops.pgd_l1_step(x, grad, x, step_size=0.25, eps=1.0, fraction=0.25, targeted=True)
    assert torch.equal(moved, torch.tensor([[0.75, 0.0, 0.5, 0.5]]))


@pytest.mark.parametrize("k", [1, 2, 100, 2500, 4999, 5000])
def test_l1_selects_exactly_the_largest(k):
    x = torch.full((8, 5000), 0.5)
    for grad in (
        noise(8, 5000).float(),
        noise(8, 5000).float().exp().pow(3),
        noise(8, 5000).sign(),
    ):
        moved = ops.pgd_l1_step(x, grad.float(), x, step_size=1e-3, eps=1.0, fraction=k / 5000)
        least = grad.abs().sort(dim=1, descending=True).values[:, k - 1 : k]
        assert torch.equal(moved != x, (grad.abs() >= least) & (grad != 0) & (moved != x))
        assert ((moved != x).sum(dim=1) >= k).all() or k > 4000  # tiny steps may round away


# ---- properties


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_is_feasible_idempotent_and_the_identity_inside(norm, dtype):
    x = pixels(*SHAPE).to(dtype)
    eps = torch.logspace(-3, 1, SHAPE[0], dtype=dtype)
    once = project(norm)(x + noise(*SHAPE).to(dtype), x, eps=eps)
    assert (lengths(once - x, norm) <= eps.double() * (1 + 1e-6) + 1e-6).all()
    assert once.min() >= 0
    assert once.max() <= 1
    assert torch.allclose(project(norm)(once, x, eps=eps), once, rtol=0, atol=1e-6)
    near = (x + 1e-6 * noise(*SHAPE).to(dtype)).clamp(0, 1)
    assert torch.equal(project(norm)(near, x, eps=1.0), near)


@pytest.mark.parametrize("norm", STEPS)
def test_rows_do_not_disturb_each_other(norm):
    """Neither a row far outside nor NaN nor the rest of the batch changes another row's bits."""
    x_adv, grad, x = problem(*SHAPE)
    whole = step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS)
    for i in range(SHAPE[0]):
        one = slice(i, i + 1)
        alone = step(norm)(x_adv[one], grad[one], x[one], step_size=0.2, eps=EPS)
        assert torch.equal(alone, whole[one])
    broken = grad.clone()
    broken[2], broken[4] = torch.nan, torch.inf
    x_adv[1] *= 1e6
    got = step(norm)(x_adv, broken, x, step_size=0.2, eps=EPS)
    for i in (0, 3, 5):
        assert torch.equal(got[i], whole[i])
    assert got.isfinite().all()


@pytest.mark.parametrize("norm", STEPS)
def test_nan_counts_as_a_zero_gradient_and_infinity_as_the_largest(norm):
    x_adv, grad, x = problem(*SHAPE)
    zero, broken = grad.clone(), grad.clone()
    zero[:, 0, 2], broken[:, 0, 2] = 0, torch.nan
    zero[1, 1, 1, 1], broken[1, 1, 1, 1] = -torch.finfo(torch.float32).max, -torch.inf
    expected = step(norm)(x_adv, zero, x, step_size=0.2, eps=EPS)
    assert torch.equal(step(norm)(x_adv, broken, x, step_size=0.2, eps=EPS), expected)
    nan = torch.full_like(grad, torch.nan)
    inside = project(norm)(x_adv, x, eps=EPS)
    assert torch.equal(step(norm)(x_adv, nan, x, step_size=0.2, eps=EPS), inside)


@pytest.mark.parametrize("norm", STEPS)
def test_nan_in_an_iterate_stays_where_it_is(norm):
    x_adv, grad, x = problem(*SHAPE)
    x_adv[2, 1, 3, 3] = torch.nan
    got = step(norm)(x_adv, grad, x, step_size=0.2, eps=100.0)
    assert torch.equal(got.isnan(), x_adv.isnan())


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_of_the_gradient_does_not_matter(norm, dtype):
    """Also of float64 gradients for float32 images, which float32 could not hold."""
    x_adv, grad, x = problem(*SHAPE, dtype=dtype)
    want = step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS)
    for exponent in (-300, -40, -30, -12, 0, 12, 30, 300):
        scaled = grad.double() * 2.0 ** round(exponent * 3.32)
        grads = [scaled]
        if -40 <= exponent < 38:
            grads.append(scaled.float())
        for scaled in grads:
            got = step(norm)(x_adv, scaled, x, step_size=0.2, eps=EPS)
            # A gradient of 1e-40 has 17 bits in float32, and one of 1e-300 none in denormal
            # numbers.
            coarse = scaled.dtype == torch.float32 and exponent == -40
            tolerance = 1e-5 if coarse else TOLERANCE[norm]
            assert (got - want).abs().max() <= tolerance, (exponent, scaled.dtype)


@pytest.mark.parametrize("norm", STEPS)
def test_the_smallest_numbers_still_point(norm):
    x = torch.full((2, 9), 0.5)
    grad = torch.zeros(2, 9)
    grad[0, 4], grad[1, 4] = 1e-45, -1e-45  # a single bit
    moved = step(norm)(x, grad, x, step_size=0.25, eps=1.0) - x
    want = torch.zeros(2, 9)
    want[0, 4], want[1, 4] = 0.25, -0.25
    assert torch.equal(moved, want)
    tiny = step(norm)(x, grad.double() * 1e-270, x, step_size=0.25, eps=1.0) - x
    assert torch.equal(tiny, want)


def test_linf_takes_the_sign_of_the_smallest_float64_beside_a_large_one():
    x = torch.full((1, 2), 0.5)
    grad = torch.tensor([[1e300, -5e-324]], dtype=torch.float64)
    got = ops.pgd_linf_step(x, grad, x, step_size=0.25, eps=1.0)
    assert torch.equal(got, torch.tensor([[0.75, 0.25]]))


@pytest.mark.parametrize("norm", STEPS)
def test_targeted_is_the_step_of_the_opposite_gradient(norm):
    x_adv, grad, x = problem(*SHAPE)
    sizes = torch.linspace(0.0, 0.5, SHAPE[0])
    for size in (0.2, sizes):
        want = step(norm)(x_adv, -grad, x, step_size=size, eps=EPS)
        got = step(norm)(x_adv, grad, x, step_size=size, eps=EPS, targeted=True)
        assert torch.equal(got, want)


@pytest.mark.parametrize("norm", STEPS)
def test_values_of_each_sample(norm):
    x_adv, grad, x = problem(*SHAPE)
    n = SHAPE[0]
    sizes, radii = torch.linspace(0.01, 0.5, n), torch.logspace(-3, 0, n)
    got = step(norm)(x_adv, grad, x, step_size=sizes, eps=radii)
    zero_dim = step(norm)(x_adv, grad, x, step_size=torch.tensor(0.2), eps=torch.tensor(EPS))
    assert torch.equal(zero_dim, step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS))
    for i in range(n):
        one = slice(i, i + 1)
        alone = step(norm)(
            x_adv[one], grad[one], x[one], step_size=float(sizes[i]), eps=float(radii[i])
        )
        assert torch.equal(alone, got[one])


def test_fraction_of_each_sample():
    x_adv, grad, x = problem(*SHAPE)
    fractions = torch.linspace(0.01, 1.0, SHAPE[0])
    got = ops.pgd_l1_step(x_adv, grad, x, step_size=0.2, eps=EPS, fraction=fractions)
    for i in range(SHAPE[0]):
        one = slice(i, i + 1)
        alone = ops.pgd_l1_step(
            x_adv[one], grad[one], x[one], step_size=0.2, eps=EPS, fraction=float(fractions[i])
        )
        assert torch.equal(alone, got[one])


@pytest.mark.parametrize("norm", STEPS)
def test_eps_zero_gives_back_the_images(norm):
    x_adv, grad, x = problem(*SHAPE)
    assert torch.equal(step(norm)(x_adv, grad, x, step_size=0.2, eps=0.0), x)
    assert torch.equal(ops.random_start(x, norm=norm, eps=0.0, seed=1), x)


# ---- bounds, layouts, dtypes


BOUNDS: dict[str, tuple[Any, Any]] = {
    "numbers": (-0.5, 1.5),
    "channels": (torch.tensor([0.0, -0.1, 0.1]), torch.tensor([1.0, 0.9, 0.8])),
    "one of each": (0.0, torch.tensor([1.0, 0.9, 0.8]).view(1, 3, 1, 1)),
    "rows of pixels": (torch.linspace(0, 0.2, 5), torch.tensor(0.9)),
    "image": (0.2 * pixels(3, 70, 5), 1.0 - 0.2 * pixels(3, 70, 5, seed=5)),
}


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bounds(norm, bounds, memory_format):
    """Boxes other than [0, 1], in every form that broadcasts to an image."""
    shape = (4, 3, 70, 5)  # long enough for runs of one bound
    low, high = BOUNDS[bounds]
    x_adv, grad, x = problem(*shape)
    if bounds == "rows of pixels":
        low = low.view(1, 1, 5)

    def expanded(bound: Any, dtype: torch.dtype) -> Any:
        if not isinstance(bound, Tensor):
            return bound
        if bound.shape == (3,):
            bound = bound.view(3, 1, 1)
        return bound.to(dtype).broadcast_to(shape[1:] if bound.ndim < 4 else (1, *shape[1:]))

    lows, highs = expanded(low, torch.float32), expanded(high, torch.float32)
    x = x.clamp(min=lows).clamp(max=highs)
    x_adv, grad, x = (t.contiguous(memory_format=memory_format) for t in (x_adv, grad, x))
    got = step(norm)(x_adv, grad, x, step_size=0.4, eps=EPS, bounds=(low, high))
    wide = [t.double() for t in (x_adv, grad, x)]
    lows, highs = (b.double() if isinstance(b, Tensor) else b for b in (lows, highs))
    want = getattr(reference, f"pgd_{norm}_step")(*wide, 0.4, EPS, lows, highs)
    assert (got - want).abs().max() <= max(TOLERANCE[norm], 1e-7)
    assert got.stride() == x.stride()
    start = ops.random_start(x, norm=norm, eps=9.0, bounds=(low, high), seed=3)
    assert bool((start >= lows).all())
    assert bool((start <= highs).all())
    assert start.stride() == x.stride()


GRADIENT_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda g: g.contiguous(memory_format=torch.channels_last),
    "transposed": lambda g: g.transpose(2, 3).contiguous().transpose(2, 3),
    "batch last": lambda g: g.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "every second": lambda g: g.repeat_interleave(2, dim=3)[..., ::2],
    "unaligned": lambda g: torch.cat([g.new_zeros(1), g.flatten()])[1:].view(g.shape),
}


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("layout", GRADIENT_LAYOUTS)
def test_strides_do_not_matter(norm, layout):
    x_adv, grad, x = problem(*SHAPE)
    want = step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS)
    change = GRADIENT_LAYOUTS[layout]
    got = step(norm)(x_adv, change(grad), x, step_size=0.2, eps=EPS)
    assert torch.equal(got, want)
    # Sums of L2 and L1 run in the order of memory.
    tolerance = TOLERANCE[norm]
    got = step(norm)(change(x_adv), grad, x, step_size=0.2, eps=EPS)
    assert (got - want).abs().max() <= tolerance
    got = step(norm)(x_adv, grad, change(x), step_size=0.2, eps=EPS)
    assert (got - want).abs().max() <= tolerance
    in_place = change(x_adv).clone(memory_format=torch.preserve_format)
    getattr(ops, f"pgd_{norm}_step_")(in_place, grad, x, step_size=0.2, eps=EPS)
    assert (in_place - want).abs().max() <= tolerance


@pytest.mark.parametrize("norm", STEPS)
def test_expanded_gradients_and_images(norm):
    x_adv, _, x = problem(*SHAPE)
    grad = torch.tensor(2.0).expand(SHAPE)  # of a sum
    want = step(norm)(x_adv, torch.full(SHAPE, 2.0), x, step_size=0.2, eps=EPS)
    assert torch.equal(step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS), want)
    one = x[:1].expand(SHAPE)
    want = step(norm)(x_adv, grad, one.contiguous(), step_size=0.2, eps=EPS)
    assert torch.equal(step(norm)(x_adv, grad, one, step_size=0.2, eps=EPS), want)


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("state", [torch.float32, torch.float64])
def test_the_gradient_may_have_any_dtype_and_the_state_keeps_its_own(norm, dtype, state):
    x_adv, grad, x = problem(*SHAPE, dtype=state)
    grad = grad.to(dtype)
    got = step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS)
    assert got.dtype == state
    want = step(norm)(x_adv, grad.to(state), x, step_size=0.2, eps=EPS)
    assert (got - want).abs().max() <= TOLERANCE[norm]


@pytest.mark.parametrize("norm", STEPS)
def test_in_place(norm):
    x_adv, grad, x = problem(*SHAPE)
    for function, rest, options in (
        (f"pgd_{norm}_step", (grad, x), {"step_size": 0.2, "eps": EPS}),
        (f"project_{norm}_box", (x,), {"eps": 0.01}),
    ):
        want = getattr(ops, function)(x_adv, *rest, **options)
        changed = x_adv.clone()
        version = changed._version
        assert getattr(ops, f"{function}_")(changed, *rest, **options) is changed
        assert torch.equal(changed, want)
        assert changed._version > version
    with pytest.raises(RuntimeError, match="x_adv: a step in place needs memory of its own"):
        getattr(ops, f"pgd_{norm}_step_")(x, grad, x, step_size=0.2, eps=EPS)


@pytest.mark.parametrize("norm", STEPS)
def test_empty(norm):
    for shape in ((0, 3, 4, 4), (3, 0)):
        x = torch.zeros(shape)
        assert step(norm)(x, x.clone(), x.clone(), step_size=0.2, eps=EPS).shape == shape
        assert ops.random_start(x, norm=norm, eps=EPS, seed=0).shape == shape


# ---- random starts


def test_philox_has_the_published_answers():
    """Known answers of Random123's own test file for philox4x32-10."""

    def words(*values: int) -> tuple[Tensor, ...]:
        return tuple(torch.tensor([value]) for value in values)

    ones = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    for counter, seed, answer in (
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (pi, 0x299F31D0_A4093822, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ):
        assert tuple(int(w) for w in reference.philox(words(*counter), seed)) == answer


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("d", [1, 3, 127, 129, 200_000])
def test_random_starts_are_the_documented_stream(device, norm, d):
    x = torch.full((3, d), 0.5, device=device)
    for seed, offset in ((0, 0), (2**62 + 5, 7), (-1, 2**40 + 3)):
        for dtype in (torch.float32, torch.float64):
            center = x.to(dtype)
            got = ops.random_start(
                center, norm=norm, eps=EPS, bounds=(-9.0, 9.0), seed=seed, offset=offset
            )
            want = reference.random_start(x.cpu().double(), norm, EPS, -9.0, 9.0, seed, offset)
            assert (got.cpu() - want).abs().max() <= 1.5e-7


def unit_noise(norm: str, n: int, d: int, seed: int = 0) -> Tensor:
    x = torch.zeros(n, d, dtype=torch.float64)
    return ops.random_start(x, norm=norm, eps=1.0, bounds=(-9.0, 9.0), seed=seed)


def test_linf_starts_are_uniform():
    u = unit_noise("linf", 20, 1000)
    assert kstest(u.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert u.abs().max() < 1
    assert abs(float(u.mean())) < 4 / (3 * 20000) ** 0.5


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("d", [2, 3, 20, 768])
def test_radius_law_of_points_uniform_in_a_ball(norm, d):
    """P(radius < r) = r^d: peers draw the radius itself uniformly."""
    radius = lengths(unit_noise(norm, 2000, d), norm)
    assert radius.max() <= 1 + 1e-6
    assert kstest((radius**d).numpy(), "uniform").pvalue > 1e-3


def test_l2_directions_are_uniform():
    u = unit_noise("l2", 5000, 3)
    direction = u / u.norm(dim=1, keepdim=True)
    for axis in range(3):  # Archimedes: each coordinate of the sphere is uniform
        assert kstest(direction[:, axis].numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert (u.T @ u / len(u) - torch.eye(3, dtype=torch.float64) / 5).abs().max() < 0.02


def test_l1_entries_of_the_ball_have_their_law():
    """P(|u_i| > t) = (1 - t)^d, and signs are independent and fair."""
    d = 7
    u = unit_noise("l1", 4000, d)
    assert kstest(((1 - u[:, 3].abs()) ** d).numpy(), "uniform").pvalue > 1e-3
    assert (u.sign().mean(dim=0).abs() < 4 / 4000**0.5).all()
    correlation = torch.corrcoef(u.sign().T) - torch.eye(d, dtype=torch.float64)
    assert correlation.abs().max() < 4 / 4000**0.5


@pytest.mark.parametrize("norm", STEPS)
def test_draws_depend_on_seed_offset_and_place_alone(norm):
    x = pixels(6, 3, 16, 16).float()
    options = {"norm": norm, "eps": EPS, "bounds": (-9.0, 9.0)}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = ops.random_start(x, seed=1, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(ops.random_start(x, seed=1, **options), first)
    assert torch.equal(ops.random_start(x[:2], seed=1, **options), first[:2])
    for other in ({"seed": 2}, {"seed": 1, "offset": 1}, {"seed": 1 + 2**32}):
        assert not torch.allclose(ops.random_start(x, **other, **options), first)
    assert not torch.allclose(first[0] - x[0], first[1] - x[1])
    into = torch.full_like(x, torch.nan)
    assert ops.random_start_(into, x, seed=1, **options) is into
    assert torch.equal(into, first)
    itself = x.clone()
    assert torch.equal(ops.random_start_(itself, itself, seed=1, **options), first)


def test_starts_stay_in_ball_and_box():
    x = pixels(*SHAPE).float()
    for norm in STEPS:
        radii = torch.linspace(0, 2, SHAPE[0])
        start = ops.random_start(x, norm=norm, eps=radii, seed=0)
        assert start.min() >= 0
        assert start.max() <= 1
        assert (lengths(start - x, norm) <= radii.double() * (1 + 1e-6) + 1e-6).all()


# ---- threads


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (2, 3, 150, 150)])
def test_threads_do_not_change_a_bit(norm, shape):
    x_adv, grad, x = problem(*shape)

    def results() -> list[Tensor]:
        return [
            step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS),
            ops.random_start(x, norm=norm, eps=EPS, seed=0),
        ]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results()
        torch.set_num_threads(3)
        three = results()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_flushed_denormals_only_lose_denormal_gradients():
    x_adv, grad, x = problem(*SHAPE)
    sparse = torch.where(torch.arange(grad.numel()).view(SHAPE) % 50 == 0, grad, 0.0)
    denormal = torch.full(SHAPE, 1e-42)

    def results(gradient: Tensor) -> list[Tensor]:
        options = {"step_size": 0.2, "eps": EPS}
        l1 = ops.pgd_l1_step(x_adv, gradient, x, fraction=0.3, **options)
        return [*(step(norm)(x_adv, gradient, x, **options) for norm in STEPS), l1]

    want = [results(grad), results(sparse), results(torch.zeros(SHAPE))]
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    try:
        got = [results(grad), results(sparse), results(denormal)]
    finally:
        torch.set_flush_denormal(False)
    for have, wanted in zip(got, want, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(have, wanted, strict=True))


# ---- torch


STEP_ARGUMENTS = (0.2, None, EPS, None, 0.0, None, 1.0, None)
TAILS: dict[str, tuple[Any, ...]] = {"linf": (), "l2": (True,), "l1": (0.1, None)}


@pytest.mark.parametrize("norm", STEPS)
@pytest.mark.parametrize("suffix", ["step", "step_"])
def test_opcheck(norm, suffix):
    op = getattr(torch.ops.repsim_fast, f"pgd_{norm}_{suffix}").default
    for layout in (torch.contiguous_format, torch.channels_last):
        x_adv, grad, x = (t.contiguous(memory_format=layout) for t in problem(2, 3, 4, 5))
        opcheck(op, x_adv, grad, x, *STEP_ARGUMENTS, *TAILS[norm])
    opcheck(op, x_adv, None, x, *STEP_ARGUMENTS, *TAILS[norm])
    radii = torch.tensor([0.1, 0.2])
    bounds = torch.rand(3, 4, 5)
    opcheck(op, x_adv, grad, x, 0.2, radii, 0.0, radii, 0.0, bounds - 1, 0.0, bounds, *TAILS[norm])


@pytest.mark.parametrize("norm", STEPS)
def test_opcheck_of_random_starts(norm):
    x = pixels(2, 3, 4, 5).float()
    rest = (norm, EPS, None, 0.0, None, 1.0, None, 1, 0)
    opcheck(torch.ops.repsim_fast.random_start.default, x, *rest)
    opcheck(torch.ops.repsim_fast.random_start_.default, x.clone(), x, *rest)


@pytest.mark.parametrize("norm", STEPS)
def test_compiles_without_graph_breaks(norm):
    in_place_step, in_place_start = getattr(ops, f"pgd_{norm}_step_"), ops.random_start_

    def attack(x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        x_adv = step(norm)(x_adv, 2 * grad, x, step_size=0.2, eps=EPS, bounds=(0.0, 1.0))
        in_place_step(x_adv, grad, x, step_size=0.1, eps=EPS, targeted=True)
        buffer = torch.empty_like(x)
        in_place_start(buffer, x, norm=norm, eps=EPS, seed=4)
        return x_adv + buffer

    x_adv, grad, x = problem(*SHAPE)
    compiled = torch.compile(attack, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x_adv, grad, x), attack(x_adv, grad, x))


def test_fake_tensors_need_no_gpu():
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(4, 3, 8, 8, device="cuda").to(memory_format=torch.channels_last)
        out = torch.ops.repsim_fast.pgd_linf_step(x, x, x, *STEP_ARGUMENTS)
    assert (out.shape, out.device.type, out.stride()) == (x.shape, "cuda", x.stride())


@pytest.mark.parametrize("norm", STEPS)
def test_a_result_is_a_constant_for_autograd(norm):
    x_adv, grad, x = problem(*SHAPE)
    leaf = x_adv.clone().requires_grad_()
    got = step(norm)(leaf, grad.clone().requires_grad_(), x, step_size=0.2, eps=EPS)
    assert not got.requires_grad
    assert torch.equal(got, step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS))
    saved = x_adv.clone()
    product = (saved * torch.ones(SHAPE, requires_grad=True)).sum()
    getattr(ops, f"pgd_{norm}_step_")(saved, grad, x, step_size=0.2, eps=EPS)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("norm", STEPS)
def test_inference_mode(norm):
    x_adv, grad, x = problem(*SHAPE)
    want = step(norm)(x_adv, grad, x, step_size=0.2, eps=EPS)
    with torch.inference_mode():
        got = step(norm)(x_adv.clone(), grad, x, step_size=0.2, eps=EPS)
        assert torch.equal(got, want)
        getattr(ops, f"pgd_{norm}_step_")(got, grad, x, step_size=0.2, eps=EPS)


# ---- bad input

X = torch.full((2, 3), 0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": [0.5]}, TypeError, "x: expected a torch.Tensor, got list"),
        ({"x": X.half()}, TypeError, "x: expected float32 or float64, got torch.float16"),
        ({"x": X[0]}, ValueError, r"x: expected a batch \(N, ...\), got shape \(3,\)"),
        ({"x_adv": X.double()}, TypeError, "x_adv: expected float32, got torch.float64"),
        ({"x_adv": X[:1]}, ValueError, r"x_adv: expected the shape of x, \(2, 3\), got \(1, 3\)"),
        ({"grad": X.long()}, TypeError, "grad: expected float64 or .*, got torch.int64"),
        ({"grad": X.T}, ValueError, r"grad: expected the shape of x, \(2, 3\), got \(3, 2\)"),
        ({"grad": None}, TypeError, "grad: expected a torch.Tensor, got NoneType"),
        ({"eps": -0.1}, ValueError, "eps: expected a number that is not negative, got -0.1"),
        ({"eps": float("nan")}, ValueError, "eps: expected a number that is not negative, got nan"),
        ({"eps": torch.ones(3)}, ValueError, r"eps: .* shape \(2,\), got shape \(3,\)"),
        ({"step_size": -1}, ValueError, "step_size: expected a number that is not negative"),
        ({"bounds": (1.0, 0.0)}, ValueError, r"bounds: the lower one .* got \(1.0, 0.0\)"),
        ({"bounds": (float("nan"), 1.0)}, ValueError, "bounds: low must not be NaN"),
        ({"bounds": (0.0, torch.ones(4))}, ValueError, r"bounds: high must be .* shape \(4,\)"),
    ],
)
@pytest.mark.parametrize("norm", STEPS)
def test_bad_input_names_argument_wanted_and_got(norm, changes, error, message):
    arguments = {"x_adv": X, "grad": X, "x": X, "eps": EPS, "step_size": 0.1, **changes}
    with pytest.raises(error, match=message):
        step(norm)(arguments.pop("x_adv"), arguments.pop("grad"), arguments.pop("x"), **arguments)


def test_unknown_words_and_fractions():
    with pytest.raises(ValueError, match="order: expected one of 'clip_project'"):
        ops.pgd_l2_step(X, X, X, step_size=0.1, eps=EPS, order="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm: expected one of 'linf'"):
        ops.random_start(X, norm="l3", eps=EPS, seed=0)  # type: ignore[arg-type]
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"fraction: expected a number in \(0, 1\]"):
            ops.pgd_l1_step(X, X, X, step_size=0.1, eps=EPS, fraction=fraction)


def test_raw_operators_check_too():
    op = torch.ops.repsim_fast.pgd_linf_step
    for arguments, message in (
        ((X.double(), X, X), "x_adv: expected the dtype of x"),
        ((X[:1], X, X), "x_adv: expected the shape of x"),
        ((X, X[:, :2], X), "grad: expected the shape of x"),
        ((X, X.long(), X), "grad: expected float64"),
        ((X.half(), X, X.half()), "x: expected float32 or float64"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(*arguments, *STEP_ARGUMENTS)
    with pytest.raises(RuntimeError, match="eps: expected a number or one value for each"):
        op(X, X, X, 0.1, None, 0.1, torch.ones(3), 0.0, None, 1.0, None)
    with pytest.raises(RuntimeError, match="low: expected the shape of an image"):
        op(X, X, X, 0.1, None, 0.1, None, 0.0, torch.ones(4), 1.0, None)
    with pytest.raises(RuntimeError, match="norm: expected linf, l2 or l1, got l9"):
        torch.ops.repsim_fast.random_start(X, "l9", 0.1, None, 0.0, None, 1.0, None, 0, 0)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-0.3, 1.7)])
@pytest.mark.parametrize("eps", [12.0, 1e4])
def test_l1_never_leaves_the_box_by_a_rounding(device, bounds, eps):
    low, high = (torch.tensor(bound, device=device) for bound in bounds)
    x = torch.rand(16, 3072, device=device)
    x[:, :300], x[:, 300:600] = 0, 1
    adv = x
    for _ in range(5):
        grad = torch.randn_like(x)
        adv = ops.pgd_l1_step(adv, grad, x, step_size=5.0, eps=eps, bounds=bounds, fraction=0.3)
        assert bool(((adv >= low) & (adv <= high)).all())
    far = ops.project_l1_box(x + 3 * torch.randn_like(x), x, eps=eps, bounds=bounds)
    assert bool(((far >= low) & (far <= high)).all())
