"""PGD's norms, budgets, restarts, early stop, precision: what each option promises."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast._core.randomness import Stream
from repsim_fast.attacks import (
    APGD,
    FGSM,
    MIFGSM,
    NFGSM,
    PGD,
    RSFGSM,
    AutoAttack,
    losses,
    objective,
)
from repsim_fast.attacks.objective import InputGradient
from repsim_fast.attacks.region import Region

RADIUS = {"linf": 8 / 255, "l2": 0.5, "l1": 4.0}
ORDER = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}


def lengths(delta: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(delta.flatten(1), ORDER[norm], dim=1)


def robust(model: nn.Module, adv: Tensor, y: Tensor) -> Tensor:
    was = [m.training for m in model.modules()]
    model.eval()
    with torch.no_grad():
        right = model(adv).argmax(1) == y
    for module, flag in zip(model.modules(), was, strict=True):
        module.training = flag
    return right


@pytest.fixture
def answers(model: nn.Module, images: Tensor) -> Tensor:
    """Labels that the model gets right."""
    return model.eval()(images).argmax(1)


@pytest.mark.parametrize("norm", RADIUS)
def test_feasible_and_harmful(model: nn.Module, images: Tensor, answers: Tensor, norm: str) -> None:
    eps = RADIUS[norm]
    adv = PGD(eps, norm=norm, seed=0)(model, images, answers)
    assert (lengths(adv - images, norm) <= eps * (1 + 1e-5)).all()
    assert adv.min() >= 0
    assert adv.max() <= 1
    assert robust(model, adv, answers).float().mean() < 0.5


def test_l2_iterates_are_those_of_the_written_out_loop(
    model: nn.Module, images: Tensor, answers: Tensor
) -> None:
    eps, size = 0.5, 0.1
    for order in ("clip_project", "project_clip"):
        adv = images.clone()
        for _ in range(5):
            adv.requires_grad_()
            # Not plain cross-entropy: its gradient has the same direction, but rounds differently.
            loss = losses.cross_entropy(model(adv), answers)
            (g,) = torch.autograd.grad(loss.sum(), adv)
            adv = (adv + size * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).detach()
            if order == "clip_project":
                adv = adv.clamp(0, 1)
            delta = adv - images
            adv = images + delta * (eps / delta.flatten(1).norm(dim=1)).clamp(max=1).view(
                -1, 1, 1, 1
            )
            adv = adv.clamp(0, 1)
        attack = PGD(eps, norm="l2", step_size=size, steps=5, random_start=False, l2_order=order)
        assert torch.allclose(attack(model, images, answers), adv, rtol=0, atol=2e-7)


@pytest.mark.parametrize("norm", RADIUS)
def test_radius_and_step_of_each_sample(
    model: nn.Module, images: Tensor, answers: Tensor, norm: str
) -> None:
    eps = RADIUS[norm] * torch.linspace(0, 1, 12)
    adv = PGD(eps, norm=norm, step_size=eps / 4 + 1e-4, seed=0)(model, images, answers)
    assert torch.equal(adv[0], images[0])
    assert (lengths(adv - images, norm) <= eps * (1 + 1e-5)).all()
    assert (lengths(adv - images, norm)[6:] > 0.8 * eps[6:]).all()


def test_a_radius_for_another_batch_is_refused(
    model: nn.Module, images: Tensor, answers: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"eps must be a number or a tensor of shape \(12,\)"):
        PGD(torch.ones(3))(model, images, answers)
    with pytest.raises(ValueError, match="step_size must be finite and positive"):
        PGD(torch.full((12,), 0.1), step_size=torch.zeros(12))(model, images, answers)


def test_bounds_of_each_channel(model: nn.Module, images: Tensor, answers: Tensor) -> None:
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    low, high = -mean / std, (1 - mean) / std
    normalised = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    adv = PGD(0.5, bounds=(low, high), seed=0)(model, normalised, answers)
    assert (adv >= low.view(3, 1, 1)).all()
    assert (adv <= high.view(3, 1, 1)).all()
    assert (adv - normalised).abs().max() <= 0.5 * (1 + 1e-6)
    with pytest.raises(ValueError, match="bounds: low"):
        PGD(0.5, bounds=(torch.zeros(5), 1.0))(model, images, answers)


def test_two_dimensional_input(answers: Tensor) -> None:
    linear = nn.Linear(20, 4)
    x, y = torch.rand(12, 20), torch.arange(12) % 4
    for norm, eps in RADIUS.items():
        adv = PGD(eps, norm=norm, steps=3, seed=0)(linear, x, y)
        assert (lengths(adv - x, norm) <= eps * (1 + 1e-5)).all()


def test_l1_uses_the_whole_budget(model: nn.Module, images: Tensor, answers: Tensor) -> None:
    """Tools that step on a coordinate and then hit the box stop at 0.93 to 0.99 of it."""
    adv = PGD(4.0, norm="l1", steps=20, random_start=False)(model, images, answers)
    assert torch.allclose(lengths(adv - images, "l1"), torch.tensor(4.0), rtol=1e-5)


def test_nan_stays_in_its_row(model: nn.Module, images: Tensor, answers: Tensor) -> None:
    """Row 4 answers NaN as soon as it is perturbed; the others must not notice."""

    def broken(x: Tensor) -> Tensor:
        logits = model(x)
        moved = (x[4] != images[4]).any()
        return torch.cat((logits[:4], logits[4:5] * (torch.nan if moved else 1.0), logits[5:]))

    for norm, eps in RADIUS.items():
        attack = PGD(eps, norm=norm, steps=4, random_start=False)
        want, got = attack(model, images, answers), attack(broken, images, answers)
        others = torch.arange(12) != 4
        assert torch.equal(got[others], want[others]), norm
        assert got.isfinite().all()
        assert (lengths(got - images, norm) <= eps * (1 + 1e-5)).all()


def test_gradients_that_share_memory(images: Tensor) -> None:
    """The gradient of a sum is an expanded scalar; stepping in place on it would crash."""

    def total(x: Tensor) -> Tensor:
        value = x.sum((1, 2, 3))
        return torch.stack((value, -value), 1)

    y = torch.zeros(12, dtype=torch.int64)
    for norm, eps in RADIUS.items():
        adv = PGD(eps, norm=norm, steps=3, random_start=False)(total, images, y)
        assert (adv.sum((1, 2, 3)) < images.sum((1, 2, 3))).all(), norm


class TestRestarts:
    def test_keep_the_worst_case_of_each_sample(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        """Many restarts at a small radius: never more robust than any of the runs alone."""
        runs = [PGD(0.012, steps=2, seed=i)(model, images, answers) for i in range(4)]
        alone = torch.stack([robust(model, adv, answers) for adv in runs])
        stream = PGD(0.012, steps=2, restarts=8, seed=0)
        together = robust(model, stream(model, images, answers), answers)
        assert together.sum() <= alone.sum(1).min()

    def test_only_the_first_restart_is_strong(self, images: Tensor, answers: Tensor) -> None:
        """A public tool keeps the last restart whatever it found."""
        calls = 0

        def model(x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            right = nn.functional.one_hot(answers, 5).float() + 0.0 * x.flatten(1)[:, :5]
            return -right if calls == 2 else right

        adv = PGD(0.1, steps=1, restarts=3, seed=0)(model, images, answers)
        first = PGD(0.1, steps=1, seed=0)(lambda x: 0 * x.flatten(1)[:, :5], images, answers)
        assert torch.equal(adv, first)

    @pytest.mark.parametrize("options", [{"restarts": 2}, {"select": "best"}, {"early_stop": True}])
    def test_nan_never_passes_for_robust(
        self, images: Tensor, answers: Tensor, options: dict
    ) -> None:
        """The model answers NaN once it is attacked; such a point is kept as the worst."""
        calls = 0

        def model(x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            logits = nn.functional.one_hot(answers, 5).float() + x.flatten(1)[:, :5]
            return logits * (torch.nan if calls > 1 else 1.0)

        adv = PGD(0.1, steps=1, seed=0, **options)(model, images, answers)
        assert (adv != images).flatten(1).any(1).all()

    def test_need_a_random_start(self) -> None:
        with pytest.raises(ValueError, match="restarts need random_start"):
            PGD(0.1, restarts=2, random_start=False)


class TestSelection:
    def test_the_last_step_counts(self, model: nn.Module, images: Tensor, answers: Tensor) -> None:
        """One step without random start must give the stepped image, not the clean one."""
        for select in ("last", "best"):
            attack = PGD(0.03, steps=1, step_size=0.03, random_start=False, select=select)
            adv = attack(model, images, answers)
            assert (adv != images).flatten(1).any(1).all(), select

    def test_best_is_never_weaker_than_last(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        last = PGD(0.02, steps=6, step_size=0.03, seed=1)(model, images, answers)
        best = PGD(0.02, steps=6, step_size=0.03, seed=1, select="best")(model, images, answers)
        assert not (robust(model, best, answers) & ~robust(model, last, answers)).any()

    def test_number_of_passes(self, images: Tensor, answers: Tensor) -> None:
        calls = 0

        def model(x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return x.flatten(1)[:, :5]

        for options, passes in (({}, 7), ({"select": "best"}, 8), ({"restarts": 3}, 24)):
            calls = 0
            PGD(0.01, steps=7, seed=0, **options)(model, images, answers)
            assert calls == passes, options


class TestEarlyStop:
    def test_robust_samples_get_the_attack_they_would_get_anyway(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        options = {"steps": 6, "step_size": 0.004, "random_start": False}
        full = PGD(0.015, select="best", **options)(model, images, answers)
        early = PGD(0.015, early_stop=True, **options)(model, images, answers)
        left = robust(model, early, answers)
        assert 0 < left.sum() < 12
        assert torch.allclose(early[left], full[left], rtol=0, atol=1e-6)
        assert not (left & ~robust(model, full, answers)).any()

    def test_the_batch_shrinks(self, images: Tensor, answers: Tensor) -> None:
        sizes: list[int] = []

        def model(x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x.flatten(1)[:, :5] * torch.tensor([1.0, 0, 0, 0, 0]) + torch.tensor(
                [0.0, 0.3, 0, 0, 0]
            )

        y = torch.zeros(12, dtype=torch.int64)
        images[:, 0, 0, 0] = torch.linspace(0.05, 1.0, 12)
        PGD(0.5, steps=10, step_size=0.05, random_start=False, early_stop=True)(model, images, y)
        assert sizes[0] == 12
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] < 8

    def test_refuses_batch_statistics(self) -> None:
        with pytest.raises(ValueError, match="early_stop shrinks the batch"):
            PGD(0.1, early_stop=True, model_mode="train")


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_state_stays_float32(
        self, model: nn.Module, images: Tensor, answers: Tensor, dtype: torch.dtype
    ) -> None:
        """In half precision a step of 8/255 would miss the radius by up to 6 %."""
        eps = 8 / 255
        half = model.to(dtype)
        adv = PGD(eps, seed=0)(half, images, answers)
        assert adv.dtype == torch.float32
        assert (adv - images).abs().max() <= eps * (1 + 1e-6)
        adv = PGD(eps, seed=0)(half, images.to(dtype), answers)
        assert adv.dtype == torch.float32
        assert (adv - images.to(dtype).float()).abs().max() <= eps * (1 + 1e-6)

    def test_float64_stays_float64(self, model: nn.Module, images: Tensor, answers: Tensor) -> None:
        adv = PGD(0.03, steps=2)(model.double(), images.double(), answers)
        assert adv.dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("norm", RADIUS)
    def test_autocast_finds_attacks_of_the_same_strength(
        self, model: nn.Module, images: Tensor, answers: Tensor, dtype: torch.dtype, norm: str
    ) -> None:
        options = {"norm": norm, "random_start": False}
        full = PGD(RADIUS[norm], **options)(model, images, answers)
        mixed = PGD(RADIUS[norm], autocast=dtype, **options)(model, images, answers)
        assert mixed.dtype == torch.float32
        assert (lengths(mixed - images, norm) <= RADIUS[norm] * (1 + 1e-5)).all()
        difference = robust(model, mixed, answers).sum() - robust(model, full, answers).sum()
        assert abs(int(difference)) <= 1

    def test_the_callers_autocast_holds(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        seen: list[torch.dtype] = []
        model[0].register_forward_hook(lambda m, i, o: seen.append(o.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            adv = PGD(0.03, steps=1)(model, images, answers)
        assert seen == [torch.bfloat16]
        assert adv.dtype == torch.float32

    @pytest.mark.parametrize("how", ["own", "outer", "weights"])
    def test_float16_gradients_do_not_underflow(
        self, model: nn.Module, images: Tensor, answers: Tensor, how: str
    ) -> None:
        """Of a model with logits as small as these, pixels would stand still."""
        model = nn.Sequential(model.eval(), nn.Linear(5, 5, bias=False))
        with torch.no_grad():
            model[1].weight.copy_(2e-7 * torch.eye(5))
        full = InputGradient(model, losses.cross_entropy)(images, answers)[2]
        zeros = {}
        for lift in (1.0, 2.0**8):
            used = model.half() if how == "weights" else model
            own = torch.float16 if how == "own" else None
            with (
                pytest.MonkeyPatch.context() as patch,
                torch.autocast("cpu", torch.float16, enabled=how == "outer"),
            ):
                patch.setattr(objective, "_HALF_SCALE", lift)
                gradient = InputGradient(used, losses.cross_entropy, autocast=own)(images, answers)
            zeros[lift] = ((gradient[2] == 0) & (full != 0)).double().mean().item()
        assert zeros[1.0] > 0.1
        assert zeros[2.0**8] < 0.02

    @pytest.mark.parametrize("norm", RADIUS)
    def test_random_starts_do_not_depend_on_the_memory_format(
        self, images: Tensor, norm: str
    ) -> None:
        laid_out = images.contiguous(memory_format=torch.channels_last)
        for other in (laid_out, images.transpose(0, 1).contiguous().transpose(0, 1)):
            starts = [
                Region.around(x, norm=norm, eps=RADIUS[norm], bounds=(0.0, 1.0)).random(Stream(0))
                for x in (images, other)
            ]
            assert torch.equal(*starts)
            assert starts[1].stride() == other.stride()

    def test_channels_last_is_the_same_attack(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        want = PGD(0.03, random_start=False)(model, images, answers)
        got = PGD(0.03, random_start=False)(
            model.to(memory_format=torch.channels_last),
            images.to(memory_format=torch.channels_last),
            answers,
        )
        # Convolutions round differently: single signs of tiny gradient entries may flip.
        assert ((got - want).abs() > 1e-6).float().mean() < 0.01


class TestOneStepAttacks:
    def test_fgsm(self, model: nn.Module, images: Tensor, answers: Tensor) -> None:
        x = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(x), answers, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        want = (images + 0.03 * gradient.sign()).clamp(0, 1)
        assert torch.allclose(FGSM(0.03)(model, images, answers), want, rtol=0, atol=6e-8)
        assert torch.equal(FGSM(0.0)(model, images, answers), images)

    def test_rs_fgsm_stays_in_the_ball(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        delta = RSFGSM(0.03, seed=0)(model, images, answers) - images
        assert 0.99 * 0.03 < delta.abs().max() <= 0.03 * (1 + 1e-6)

    def test_n_fgsm_is_not_clipped_to_the_radius(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        images = images * 0.5 + 0.25  # away from the box
        attack = NFGSM(0.03, seed=0)
        delta = attack(model, images, answers) - images
        assert 2.5 * 0.03 < delta.abs().max() <= 3 * 0.03 * (1 + 1e-6)
        noise = (delta.abs() - 0.03).clamp(min=0)  # |n +- eps|, n uniform in [-2 eps, 2 eps]
        assert noise.max() <= 2 * 0.03 * (1 + 1e-6)

    def test_momentum_accumulates_normalised_gradients(
        self, model: nn.Module, images: Tensor, answers: Tensor
    ) -> None:
        adv, velocity = images.clone(), torch.zeros_like(images)
        for _ in range(3):
            x = adv.clone().requires_grad_()
            loss = nn.functional.cross_entropy(model(x), answers, reduction="sum")
            (g,) = torch.autograd.grad(loss, x)
            velocity = 0.9 * velocity + g / g.abs().flatten(1).sum(1).view(-1, 1, 1, 1)
            adv = (adv + 0.01 * velocity.sign()).clamp(images - 0.03, images + 0.03).clamp(0, 1)
        got = MIFGSM(0.03, steps=3, momentum=0.9)(model, images, answers)
        assert ((got - adv).abs() > 1e-6).float().mean() < 0.002


@pytest.mark.parametrize(
    ("norm", "fits", "eps"), [("linf", 1.0, 8), ("l2", 13.8, 14), ("l1", 192, 193)]
)
def test_a_radius_in_other_units_is_noticed(
    model: nn.Module, images: Tensor, answers: Tensor, norm: str, fits: float, eps: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(fits, norm=norm, steps=1)(model, images, answers)
        PGD(8, bounds=(0, 255), steps=1)(model, images * 255, answers)
    for attack in (PGD(eps, norm=norm, steps=1), APGD(eps, norm=norm, steps=1)):
        with pytest.warns(UserWarning, match=r"eps: a radius of .* units of the images"):
            attack(model, images, answers)


@pytest.mark.parametrize("attack", [PGD, APGD])
@pytest.mark.parametrize("name", ["steps", "restarts", "draws"])
def test_counts_are_whole(attack: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be a whole number, got 1\.5"):
        attack(0.1, **{name: 1.5})


@pytest.mark.parametrize("attack", [PGD, APGD, AutoAttack])
def test_the_norm_is_looked_at_before_the_first_call(attack: Any) -> None:
    with pytest.raises(ValueError, match=r"norm must be one of .*'linf'.* got 'Linf'"):
        attack(0.1, norm="Linf")
