"""One attack step alone against the eager textbook step, and against moving its bytes.

The bound is a torch operation with a Linf step's traffic, three reads and one write (16 bytes for
each float32 entry): `addcmul` with and without a new result. The L1 projection is compared with the
sorting one. Everything on one CPU thread, or on the GPU if there is one; correctness comes first.

Steps are timed five in a row, as a loop takes them; times are those of one. Whether a
new result costs page faults depends on what the memory allocator has kept, which multiplies the
time of the textbook steps in some runs: the careful, allocation-free torch step is the peer then.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from timing import Timing, side_by_side
from torch import Tensor

from repsim_fast import ops
from repsim_fast.ops.reference import pgd as reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(128, 3, 32, 32), (32, 3, 224, 224)]
# Step and radius: what CIFAR and ImageNet attacks use.
LINF = {"step_size": 2 / 255, "eps": 8 / 255}
L2 = {"step_size": 0.1, "eps": 0.5}
L1 = {"step_size": 1.0, "eps": 12.0}
ROUNDS = 25
SORTING_ROUNDS = 5  # it takes most of a second on large images
IN_A_ROW = 5

shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def problem(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Iterate on its way through the ball, gradient, clean images."""
    x, grad = torch.rand(shape), torch.randn(shape)
    x_adv = (x + 6 / 255 * torch.randn(shape).sign()).clamp(0, 1)
    return x_adv.to(DEVICE), grad.to(DEVICE), x.to(DEVICE)


def textbook_linf(x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    x_adv = x_adv + LINF["step_size"] * grad.sign()
    delta = torch.clamp(x_adv - x, -LINF["eps"], LINF["eps"])
    return torch.clamp(x + delta, 0, 1)


def careful_linf(x_adv: Tensor, grad: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """In place, with the bounds of ball and box made once for all steps."""
    x_adv.add_(grad.sign(), alpha=LINF["step_size"])
    return torch.clamp(x_adv, low, high, out=x_adv)


def textbook_l2(x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    norm = grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-10
    x_adv = x_adv + L2["step_size"] * (grad / norm)
    delta = torch.clamp(x_adv, 0, 1) - x
    length = delta.flatten(1).norm(dim=1)
    factor = torch.clamp(L2["eps"] / length, max=1.0)
    return torch.clamp(x + delta * factor.view(-1, 1, 1, 1), 0, 1)


def sorting_l1_projection(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Exact projection on the L1 ball cut with [0, 1], by sorting the 2d knots of its threshold.

    The norm that a threshold t leaves falls from knot to knot, with a slope that gains an entry at
    t = |u| - room and loses it at t = |u|.
    """
    u = (x_adv - x).flatten(1)
    length = u.abs()
    room = torch.where(u >= 0, 1 - x.flatten(1), x.flatten(1))
    kept = torch.minimum(length, room)
    knots = torch.cat((length, length - kept), dim=1)
    change = torch.cat((torch.ones_like(length), -torch.ones_like(length)), dim=1)
    knots, order = knots.sort(dim=1, descending=True)
    slope = change.gather(1, order).cumsum(1)
    # Norm at each knot, from the largest, where it is 0, downwards.
    gaps = knots[:, :-1] - knots[:, 1:]
    norm = torch.cat((torch.zeros_like(knots[:, :1]), (slope[:, :-1] * gaps).cumsum(1)), dim=1)
    inside = kept.sum(1, keepdim=True) <= eps
    last = (norm <= eps).sum(1, keepdim=True) - 1
    rest = eps - norm.gather(1, last)
    threshold = knots.gather(1, last) - rest / slope.gather(1, last).clamp(min=1)
    threshold = torch.where(inside, 0.0, threshold)
    shrunk = torch.minimum((length - threshold).clamp(min=0), room)
    return (x.flatten(1) + u.sign() * shrunk).view_as(x)


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).abs().max())


def in_a_row(alternatives: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, Timing]:
    def repeated(function: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(IN_A_ROW):
                function()

        return run

    rows = {name: repeated(function) for name, function in alternatives.items()}
    times = side_by_side(rows, rounds=rounds)
    return {
        name: Timing(t.median / IN_A_ROW, t.low / IN_A_ROW, t.high / IN_A_ROW)
        for name, t in times.items()
    }


def report(
    record: Callable[..., None], case: str, times: dict[str, Timing], peer: str, bound: str | None
) -> None:
    for name, timing in times.items():
        figures: dict[str, Any] = {"speedup": times[peer].median / timing.median}
        if bound is not None:
            figures["share_of_bound"] = timing.median / times[bound].median
        record(f"{case} {name}", **timing.row(), **figures)


@shapes
def test_linf(benchmark, record, shape):
    x_adv, grad, x = problem(shape)
    moved = x_adv + LINF["step_size"] * grad.sign()
    want = torch.minimum(torch.maximum(moved, x - LINF["eps"]), x + LINF["eps"]).clamp(0, 1)
    assert torch.equal(ops.pgd_linf_step(x_adv, grad, x, **LINF), want)
    assert error(textbook_linf(x_adv, grad, x), want.double()) < 2e-7

    state, careful, other, out = x_adv.clone(), x_adv.clone(), x_adv.clone(), torch.empty_like(x)
    low, high = (x - LINF["eps"]).clamp(min=0), (x + LINF["eps"]).clamp(max=1)
    times = in_a_row(
        {
            "textbook": lambda: textbook_linf(x_adv, grad, x),
            "careful torch, in place": lambda: careful_linf(careful, grad, low, high),
            "bound (addcmul)": lambda: torch.addcmul(x_adv, grad, x),
            "bound (addcmul, into memory at hand)": lambda: torch.addcmul(x_adv, grad, x, out=out),
            "bound (addcmul, in place)": lambda: other.addcmul_(grad, x, value=1e-9),
            "ours": lambda: ops.pgd_linf_step(x_adv, grad, x, **LINF),
            "ours, in place": lambda: ops.pgd_linf_step_(state, grad, x, **LINF),
        }
    )
    report(record, f"linf {shape}", times, "textbook", "bound (addcmul, into memory at hand)")
    benchmark(ops.pgd_linf_step_, state, grad, x, **LINF)


@shapes
@pytest.mark.parametrize("outside", [False, True], ids=["inside", "on the ball"])
def test_l2(benchmark, record, shape, outside):
    """Inside the ball two passes suffice; on it a third brings the sample back."""
    x_adv, grad, x = problem(shape)
    if not outside:
        x_adv = x.clone()
    want = reference.pgd_l2_step(
        *(t.double() for t in (x_adv, grad, x)), L2["step_size"], L2["eps"], 0.0, 1.0
    )
    assert error(ops.pgd_l2_step(x_adv, grad, x, **L2), want) <= 2e-7
    assert error(textbook_l2(x_adv, grad, x), want) <= 1e-6

    # In place the gradient's sign alternates, or the iterate would move onto the ball.
    state, other, out = x_adv.clone(), x_adv.clone(), torch.empty_like(x)
    turns = itertools.cycle((False, True))

    def in_place() -> None:
        ops.pgd_l2_step_(state, grad, x, **L2, targeted=next(turns))

    times = in_a_row(
        {
            "textbook": lambda: textbook_l2(x_adv, grad, x),
            "bound (addcmul)": lambda: torch.addcmul(x_adv, grad, x),
            "bound (addcmul, into memory at hand)": lambda: torch.addcmul(x_adv, grad, x, out=out),
            "bound (addcmul, in place)": lambda: other.addcmul_(grad, x, value=1e-9),
            "ours": lambda: ops.pgd_l2_step(x_adv, grad, x, **L2),
            "ours, in place": in_place,
        }
    )
    place = "on the ball" if outside else "inside"
    report(record, f"l2 {place} {shape}", times, "textbook", "bound (addcmul, into memory at hand)")
    benchmark(ops.pgd_l2_step, x_adv, grad, x, **L2)


@shapes
@pytest.mark.parametrize("scale", [0.01, 0.3])
def test_l1_projection(benchmark, record, shape, scale):
    x = torch.rand(shape, device=DEVICE)
    x_adv = x + scale * torch.randn(shape, device=DEVICE)
    eps = L1["eps"]
    want = reference.project_l1_box(x_adv.double(), x.double(), eps, 0.0, 1.0)
    assert error(ops.project_l1_box(x_adv, x, eps=eps), want) <= 1e-6
    assert error(sorting_l1_projection(x_adv.double(), x.double(), eps), want) <= 1e-6

    times = in_a_row(
        {
            "sorting": lambda: sorting_l1_projection(x_adv, x, eps),
            "ours": lambda: ops.project_l1_box(x_adv, x, eps=eps),
        },
        rounds=SORTING_ROUNDS,
    )
    report(record, f"l1 projection, noise {scale}, {shape}", times, "sorting", None)
    benchmark(ops.project_l1_box, x_adv, x, eps=eps)


@shapes
def test_l1(benchmark, record, shape):
    x_adv, grad, x = problem(shape)
    arguments = (*(t.double() for t in (x_adv, grad, x)), *L1.values(), 0.0, 1.0)
    want = reference.pgd_l1_step(*arguments, torch.tensor(0.01))
    assert error(ops.pgd_l1_step(x_adv, grad, x, **L1), want) <= 1e-6

    def with_sort() -> Tensor:
        direction = reference.l1_direction(x_adv, grad, 0.0, 1.0, 0.01)
        moved = x_adv + L1["step_size"] * direction
        return sorting_l1_projection(moved, x, L1["eps"])

    times = in_a_row(
        {"sorting": with_sort, "ours": lambda: ops.pgd_l1_step(x_adv, grad, x, **L1)},
        rounds=SORTING_ROUNDS,
    )
    report(record, f"l1 {shape}", times, "sorting", None)
    benchmark(ops.pgd_l1_step, x_adv, grad, x, **L1)


@shapes
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_start(benchmark, record, shape, norm):
    x = torch.rand(shape, device=DEVICE)
    start = ops.random_start(x, norm=norm, eps=0.5, seed=1)
    want = reference.random_start(x.cpu().double(), norm, 0.5, 0.0, 1.0, seed=1)
    assert error(start.cpu(), want) <= 2e-7
    draw = {"linf": torch.rand, "l2": torch.randn, "l1": torch.rand}[norm]
    times = side_by_side(
        {
            "torch draws the numbers alone": lambda: draw(shape, device=DEVICE),
            "ours": lambda: ops.random_start_(start, x, norm=norm, eps=0.5, seed=1),
        },
        rounds=ROUNDS,
    )
    report(record, f"random start {norm} {shape}", times, "torch draws the numbers alone", None)
    benchmark(ops.random_start_, start, x, norm=norm, eps=0.5, seed=1)
