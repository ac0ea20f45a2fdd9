"""Steps, projections and random starts against written-out references, compiled and plain."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from python_tests.support.op_tester import take_kernels_of_steps_away
from repsim_fast._core.randomness import Stream
from repsim_fast.attacks.region import Region
from repsim_fast.ops import Norm, Order

NORMS: dict[Norm, float] = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
SHAPE = (8, 3, 5, 7)


@pytest.fixture(params=["compiled", "plain"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which implementation a region uses."""
    kind: str = request.param
    if kind == "plain":
        take_kernels_of_steps_away(monkeypatch)
    return kind


pytestmark = pytest.mark.usefixtures("kind")


class Through:
    """The functions of one norm, through the region that attacks use."""

    def __init__(self, norm: Norm) -> None:
        self.norm = norm

    def region(self, x: Tensor, eps: Any, low: Any, high: Any) -> Region:
        return Region(x, self.norm, eps, low, high)

    def step(
        self, adv: Tensor, gradient: Tensor, x: Tensor, size: Any, eps: Any, low: Any, high: Any
    ) -> Tensor:
        return self.region(x, eps, low, high).step(adv, gradient, size)

    def project(self, adv: Tensor, x: Tensor, eps: Any, low: Any, high: Any) -> Tensor:
        return self.region(x, eps, low, high).project(adv)

    def random(self, x: Tensor, eps: Any, low: Any, high: Any, seed: int = 0) -> Tensor:
        return self.region(x, eps, low, high).random(Stream(seed))


STEP = {norm: Through(norm).step for norm in NORMS}
PROJECT = {norm: Through(norm).project for norm in NORMS}
RANDOM = {norm: Through(norm).random for norm in NORMS}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int) -> Tensor:
    """Images with many exact zeros and ones."""
    x = torch.rand(shape, generator=generator(1)) * 1.6 - 0.3
    return x.clamp(0, 1)


def noise(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def lengths(delta: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(delta.double().flatten(1), NORMS[norm], dim=1)


def l1_by_bisection(adv: Tensor, x: Tensor, eps: Tensor) -> Tensor:
    """Projection on the L1 ball cut with [0, 1], float64, 200 halvings for each row."""
    u = (adv.double() - x.double()).flatten(1)
    room = torch.where(u >= 0, 1 - x.double().flatten(1), x.double().flatten(1))

    def shrunk(t: Tensor) -> Tensor:
        return torch.minimum((u.abs() - t).clamp(min=0), room)

    eps = eps.double().view(-1, 1)
    low, high = torch.zeros_like(eps), u.abs().amax(1, keepdim=True)
    inside = shrunk(low).sum(1, keepdim=True) <= eps
    for _ in range(200):
        middle = (low + high) / 2
        outside = shrunk(middle).sum(1, keepdim=True) > eps
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    t = torch.where(inside, torch.zeros_like(high), high)
    return (x.double().flatten(1) + u.sign() * shrunk(t)).view(x.shape)


class TestProjections:
    @pytest.mark.parametrize("d", [3, 64, 3072])
    @pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0])
    def test_l1_is_the_euclidean_projection_on_ball_and_box(self, d: int, scale: float) -> None:
        x = pixels(16, d)
        adv = x + noise(16, d) * scale
        eps = torch.logspace(-3, math.log10(d), 16)  # rows outside, inside and at corners
        assert torch.allclose(
            PROJECT["l1"](adv, x, eps, 0.0, 1.0).double(),
            l1_by_bisection(adv, x, eps),
            rtol=0,
            atol=1e-6,
        )

    def test_l1_is_exact_in_float64(self) -> None:
        x = pixels(16, 500).double()
        adv = x + noise(16, 500).double()
        eps = torch.logspace(-2, 2, 16, dtype=torch.float64)
        got = PROJECT["l1"](adv, x, eps, 0.0, 1.0)
        assert torch.allclose(got, l1_by_bisection(adv, x, eps), rtol=0, atol=1e-13)

    @pytest.mark.parametrize("case", ["ties", "one coordinate", "no room", "corner", "huge"])
    def test_l1_of_awkward_rows(self, case: str) -> None:
        x = torch.full((1, 6), 0.5)
        u = {
            "ties": torch.tensor([[0.3, -0.3, 0.3, -0.3, 0.3, -0.3]]),
            "one coordinate": torch.tensor([[0.0, 0.0, 5.0, 0.0, 0.0, 0.0]]),
            "no room": torch.tensor([[0.4, 0.3, 0.2, -0.1, 0.0, 0.1]]),
            "corner": torch.tensor([[9.0, 9.0, -9.0, 9.0, -9.0, 0.001]]),
            "huge": torch.tensor([[1e6, -1e6, 1e5, 3.0, 2.0, 1.0]]),
        }[case]
        if case == "no room":
            x = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]])
        if case == "huge":  # float32 resolves 1e6 only to 0.06
            x, u = x.double(), u.double()
        for eps in (0.0, 0.25, 0.7, 2.4, 100.0):
            got = PROJECT["l1"](x + u, x, eps, 0.0, 1.0).double()
            want = l1_by_bisection(x + u, x, torch.tensor([eps]))
            assert torch.allclose(got, want, rtol=0, atol=1e-6), eps

    def test_l1_rows_do_not_disturb_each_other(self) -> None:
        """A row far outside must not push a row inside out of its ball."""
        x = pixels(2, 100)
        adv = x + torch.stack((noise(100) * 1e-4, noise(100) * 1e3))
        both = PROJECT["l1"](adv, x, 0.5, -9e9, 9e9)
        assert torch.equal(both[0], adv[0])
        assert lengths(both - x, "l1")[1] <= 0.5 * (1 + 1e-5)

    @pytest.mark.parametrize("norm", NORMS)
    def test_idempotent_feasible_and_identity_inside(self, norm: str) -> None:
        x = pixels(*SHAPE)
        eps = torch.logspace(-3, 1, len(x))
        once = PROJECT[norm](x + noise(*SHAPE), x, eps, 0.0, 1.0)
        assert (lengths(once - x, norm) <= eps.double() * (1 + 1e-6) + 1e-6).all()
        assert once.min() >= 0
        assert once.max() <= 1
        assert torch.allclose(PROJECT[norm](once, x, eps, 0.0, 1.0), once, rtol=0, atol=1e-6)
        near = (x + 1e-6 * noise(*SHAPE)).clamp(0, 1)
        assert torch.equal(PROJECT[norm](near, x, 1.0, 0.0, 1.0), near)

    @pytest.mark.parametrize("order", ["clip_project", "project_clip"])
    def test_l2_in_both_orders(self, order: Order) -> None:
        x = pixels(*SHAPE).double()
        adv, eps = x + noise(*SHAPE).double(), 1.5
        clipped = adv.clamp(0, 1) if order == "clip_project" else adv
        delta = clipped - x
        scale = (eps / delta.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
        want = x + delta * scale
        want = want if order == "clip_project" else want.clamp(0, 1)
        around = replace(Through("l2").region(x.float(), eps, 0.0, 1.0), order=order)
        got = around.project(adv.float())
        assert torch.allclose(got.double(), want, rtol=0, atol=2e-7)
        radius = lengths(got - x.float(), "l2").max()
        if order == "clip_project":
            assert radius == pytest.approx(eps, rel=1e-6)  # the whole radius is used
        else:
            assert radius < 0.9 * eps


class TestSteps:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
    def test_length_does_not_depend_on_the_scale_of_the_gradient(
        self, norm: str, scale: float
    ) -> None:
        x = torch.full(SHAPE, 0.5)
        gradient = noise(*SHAPE)
        want = STEP[norm](x, gradient, x, 0.05, 1.0, 0.0, 1.0)
        got = STEP[norm](x, gradient * scale, x, 0.05, 1.0, 0.0, 1.0)
        assert torch.allclose(got, want, rtol=0, atol=2e-7)
        assert torch.allclose(lengths(got - x, norm).float(), torch.tensor(0.05), rtol=1e-5)

    @pytest.mark.parametrize("norm", NORMS)
    def test_denormal_gradients_still_point(self, norm: str) -> None:
        x = torch.full(SHAPE, 0.5)
        got = STEP[norm](x, noise(*SHAPE).sign() * 1e-41, x, 0.05, 1.0, 0.0, 1.0)
        assert torch.allclose(lengths(got - x, norm).float(), torch.tensor(0.05), rtol=1e-4)

    @pytest.mark.parametrize("norm", NORMS)
    def test_a_zero_gradient_does_not_move(self, norm: str) -> None:
        x = pixels(*SHAPE)
        assert torch.equal(STEP[norm](x, torch.zeros(SHAPE), x, 0.05, 1.0, 0.0, 1.0), x)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    def test_a_bad_row_stays_alone_and_finite(self, norm: str, bad: float) -> None:
        x, gradient = pixels(*SHAPE), noise(*SHAPE)
        clean = STEP[norm](x, gradient, x, 0.05, 1.0, 0.0, 1.0)
        gradient[3, 1, 2, 2] = bad
        got = STEP[norm](x, gradient, x, 0.05, 1.0, 0.0, 1.0)
        others = torch.arange(len(x)) != 3
        assert torch.equal(got[others], clean[others])
        assert got.isfinite().all()

    @pytest.mark.parametrize("norm", NORMS)
    def test_a_row_does_not_depend_on_its_batch(self, norm: str) -> None:
        x, gradient = pixels(*SHAPE), noise(*SHAPE) * torch.logspace(-6, 6, 8).view(-1, 1, 1, 1)
        whole = STEP[norm](x, gradient, x, 0.05, 0.5, 0.0, 1.0)
        for i in range(len(x)):
            alone = STEP[norm](x[i : i + 1], gradient[i : i + 1], x[i : i + 1], 0.05, 0.5, 0.0, 1.0)
            assert torch.allclose(whole[i : i + 1], alone, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("norm", NORMS)
    def test_any_layout_of_the_gradient(self, norm: str) -> None:
        x, gradient = pixels(*SHAPE), noise(*SHAPE)
        want = STEP[norm](x, gradient, x, 0.05, 0.5, 0.0, 1.0)
        strided = torch.stack((gradient, gradient), -1)[..., 0]
        for other in (gradient.to(memory_format=torch.channels_last), strided):
            assert torch.allclose(STEP[norm](x, other, x, 0.05, 0.5, 0.0, 1.0), want, atol=1e-7)
        expanded = torch.tensor(1.0).expand(SHAPE)
        STEP[norm](x, expanded, x, 0.05, 0.5, 0.0, 1.0)
        assert expanded[0, 0, 0, 0] == 1

    @pytest.mark.parametrize("norm", NORMS)
    def test_eps_size_and_bounds_of_each_sample_and_channel(self, norm: str) -> None:
        x, gradient = pixels(*SHAPE) * 0.4 + 0.3, noise(*SHAPE)
        eps, size = torch.linspace(0.0, 1.0, 8), torch.linspace(0.3, 0.6, 8)
        low = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
        high = torch.tensor([0.7, 0.8, 0.9]).view(3, 1, 1)
        x = x.clamp(min=low).clamp(max=high)
        whole = STEP[norm](x, gradient, x, size, eps, low, high)
        assert (whole >= low).all()
        assert (whole <= high).all()
        for i in range(8):
            rows = slice(i, i + 1)
            args = (x[rows], float(size[i]), float(eps[i]), low, high)
            assert torch.allclose(
                STEP[norm](x[rows], gradient[rows], *args), whole[rows], atol=2e-7
            )

    def test_l1_moves_the_largest_coordinates_that_can_move(self) -> None:
        x = torch.tensor([[1.0, 0.5, 0.5, 0.0, 0.5, 0.5]])
        gradient = torch.tensor([[9.0, -3.0, 2.0, -8.0, 1.0, 0.1]])  # 0 and 3 are stuck at the box
        got = replace(Through("l1").region(x, 1.0, 0.0, 1.0), fraction=2 / 6).step(x, gradient, 0.2)
        assert torch.allclose(got - x, torch.tensor([[0.0, -0.1, 0.1, 0.0, 0.0, 0.0]]), atol=1e-7)

    def test_l1_share_of_each_sample(self) -> None:
        x, gradient = torch.full((3, 100), 0.5), noise(3, 100)
        around = Through("l1").region(x, 9.0, 0.0, 1.0)
        around = replace(around, fraction=torch.tensor([0.01, 0.1, 1.0]))
        moved = around.step(x, gradient, 0.25) - x
        assert (moved != 0).sum(1).tolist() == [1, 10, 100]
        assert torch.allclose(moved.abs().sum(1), torch.full((3,), 0.25))


class TestRandomStarts:
    @pytest.mark.parametrize("d", [2, 10, 768])
    @pytest.mark.parametrize("norm", ["l2", "l1"])
    def test_radius_law_is_that_of_the_uniform_ball(self, norm: str, d: int) -> None:
        """(|delta| / eps)^d is uniform; a uniform radius or the sphere would fail at once."""
        x = torch.zeros(2000, d, dtype=torch.float64)
        delta = RANDOM[norm](x, 0.3, -9.0, 9.0, d)
        assert kstest((lengths(delta, norm) / 0.3).numpy() ** d, "uniform").pvalue > 1e-3

    @pytest.mark.parametrize("norm", NORMS)
    def test_unbiased_and_of_equal_coordinates(self, norm: str) -> None:
        delta = RANDOM[norm](torch.zeros(20000, 4), 1.0, -9.0, 9.0)
        spread = delta.std(0)
        assert (delta.mean(0).abs() < 5 * spread / 20000**0.5).all()
        assert torch.allclose(spread, spread.mean().expand(4), rtol=0.05)

    def test_linf_is_uniform_in_the_cube(self) -> None:
        delta = RANDOM["linf"](torch.zeros(4000, 2), 0.3, -9.0, 9.0)
        assert kstest(delta[:, 0].numpy(), "uniform", (-0.3, 0.6)).pvalue > 1e-3
        assert kstest(delta[:, 1].numpy(), "uniform", (-0.3, 0.6)).pvalue > 1e-3

    @pytest.mark.parametrize("norm", NORMS)
    def test_inside_ball_and_box(self, norm: str) -> None:
        x = pixels(*SHAPE)
        eps = torch.logspace(-3, 1, 8)
        start = RANDOM[norm](x, eps, 0.0, 1.0)
        assert (lengths(start - x, norm) <= eps.double() * (1 + 1e-6) + 1e-6).all()
        assert start.min() >= 0
        assert start.max() <= 1

    def test_no_draw_touches_the_global_state(self) -> None:
        state = torch.get_rng_state()
        for draw in RANDOM.values():
            draw(pixels(*SHAPE), 0.1, 0.0, 1.0)
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["compiled"], indirect=True)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gradient_dtype", [torch.float32, torch.bfloat16])
def test_compiled_and_plain_agree(
    norm: Norm, dtype: torch.dtype, gradient_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linf bit for bit; the others up to the rounding of norms and sums."""
    x = pixels(*SHAPE).to(dtype)
    gradient = noise(*SHAPE).to(gradient_dtype)
    around = Through(norm).region(x, torch.logspace(-2, 1, 8, dtype=dtype), 0.0, 1.0)
    results = []
    for compiled in (True, False):
        if not compiled:
            take_kernels_of_steps_away(monkeypatch)
        adv = x
        for _ in range(4):
            adv = around.step(adv, gradient, 0.3)
        results.append(adv)
    tolerance = {"linf": 0.0, "l2": 4e-7, "l1": 1e-6}[norm]
    assert torch.allclose(*results, rtol=0, atol=tolerance)
