"""Attacks on images that do not lie in the bounds, as those with injected features."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import APGD, FGSM, NFGSM, PGD, AutoAttack, Execution
from repsim_fast.training import Evaluation, methods, train
from repsim_fast.training.methods import TrainingBatch

EPS = 0.05
P = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, 3))


@pytest.fixture
def injected() -> tuple[Tensor, Tensor]:
    """Images in [0, 1] with a feature of twice the radius on top; ten of them stay inside."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(40, 3, 4, 4, generator=generator)
    y = torch.randint(3, (40,), generator=generator)
    v = 0.2 * torch.ones(4, 4).triu() - 0.1
    return torch.cat((x[:30] + v, x[30:])), y


def length(change: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(change.flatten(1), P[norm], dim=1)


def attacks(norm: str, outside: Any) -> list[Any]:
    eps = {"linf": EPS, "l2": 0.4, "l1": 2.0}[norm]
    common: dict[str, Any] = {"norm": norm, "outside": outside, "seed": 0}
    return [
        PGD(eps, steps=5, **common),
        PGD(eps, steps=5, select="best", restarts=2, early_stop=True, **common),
        APGD(eps, steps=10, **common),
        FGSM(eps, **common),
        AutoAttack(eps, stages=("apgd-ce",), steps=10, **common),
    ]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_kept_images_stay_in_their_own_reach(
    model: nn.Module, injected: tuple[Tensor, Tensor], norm: str
) -> None:
    x, y = injected
    for attack in attacks(norm, "keep"):
        adv = attack(model, x, y)
        assert bool((adv >= x.clamp(max=0)).all())
        assert bool((adv <= x.clamp(min=1)).all())
        assert length(adv - x, norm).max() <= attack.eps * (1 + 1e-5)
        assert not torch.equal(adv, x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_clipped_images_lie_in_the_box_and_were_in_the_ball(
    model: nn.Module, injected: tuple[Tensor, Tensor], norm: str
) -> None:
    x, y = injected
    pulled = (x - x.clamp(0, 1)).abs()
    for attack in attacks(norm, "clip"):
        adv = attack(model, x, y)
        assert adv.min() >= 0
        assert adv.max() <= 1
        # What the box alone does to an image comes on top of the radius, and nothing else.
        assert (length(adv - x, norm) <= attack.eps * (1 + 1e-5) + length(pulled, norm)).all()


def test_clipping_is_the_published_step(model: nn.Module, injected: tuple[Tensor, Tensor]) -> None:
    x, y = injected
    images = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(images), y), images)
    delta = (EPS * gradient.sign()).clamp(-x, 1 - x)
    assert torch.allclose(FGSM(EPS, outside="clip")(model, x, y), x + delta, atol=1e-7)
    assert delta.abs().max() > EPS


@pytest.mark.parametrize("outside", ["clip", "keep"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_images_inside_are_attacked_as_ever(
    model: nn.Module, injected: tuple[Tensor, Tensor], norm: str, outside: str
) -> None:
    x, y = injected[0][30:].double(), injected[1][30:]
    model = model.double()
    order = {"l2_order": "project_clip"} if outside == "clip" else {}
    eps = {"linf": EPS, "l2": 0.4, "l1": 0.3}[norm]
    one, other = (
        PGD(eps, norm=norm, steps=4, seed=3, outside=name, **order)(model, x, y)
        for name in ("error", outside)
    )
    if (norm, outside) == ("l1", "clip"):  # that of the other is the nearest point of both sets
        assert other.min() >= 0
        assert other.max() <= 1
    else:
        assert torch.allclose(one, other, atol=1e-9)


class Corners:
    """Stands for an attack of pyautoattack: it takes images in [0, 1] only, and may end outside of
    any ball, at a corner of the box."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        self.model = model

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.min() >= 0
        assert x.max() <= 1
        images = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(self.model(images), y)
        (gradient,) = torch.autograd.grad(loss, images)
        return (gradient > 0).to(x)


@pytest.mark.parametrize("outside", ["clip", "keep"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stages_of_the_package_are_brought_back_into_the_region(
    model: nn.Module,
    injected: tuple[Tensor, Tensor],
    norm: str,
    outside: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package, fab, square = (ModuleType(n) for n in ("pyautoattack", "fab_pt", "square"))
    package.fab_pt, package.square = fab, square  # type: ignore[attr-defined]
    square.SquareAttack = Corners  # type: ignore[attr-defined]
    for name, module in (("", package), (".fab_pt", fab), (".square", square)):
        monkeypatch.setitem(sys.modules, f"pyautoattack{name}", module)
    x = injected[0]
    y = model(x).argmax(1)  # stages are shown what is not fooled yet
    eps = {"linf": EPS, "l2": 0.4, "l1": 2.0}[norm]
    adv = AutoAttack(eps, norm=norm, outside=outside, stages=("square",), seed=0)(model, x, y)
    box = (0.0, 1.0) if outside == "clip" else (x.clamp(max=0), x.clamp(min=1))
    assert torch.equal(adv, adv.clamp(*map(torch.as_tensor, box)))
    pulled = length(x - x.clamp(0, 1), norm) if outside == "clip" else 0.0
    assert (length(adv - x, norm) <= eps * (1 + 1e-5) + pulled).all()
    begin = x.clamp(0, 1) if outside == "clip" else x
    loss, before = (
        nn.functional.cross_entropy(model(images), y, reduction="none") for images in (adv, begin)
    )
    assert (loss > before).float().mean() > 0.9
    with pytest.raises(ValueError, match="with outside='clip'"):
        AutoAttack(eps, norm=norm, stages=("square",))(model, x, y)


def test_no_bounds(model: nn.Module, injected: tuple[Tensor, Tensor]) -> None:
    x, y = injected
    adv = NFGSM(EPS, bounds=(-torch.inf, torch.inf), seed=0)(model, x, y)
    assert length(adv - x, "linf").max() <= 3 * EPS * (1 + 1e-5)
    assert adv.min() < -0.01


@pytest.mark.parametrize("outside", ["clip", "keep"])
@pytest.mark.parametrize(
    "name", ["pgd", "trades", "mart", "fgsm", "rs-fgsm", "n-fgsm", "gradalign", "free"]
)
def test_methods_pass_it_on(
    model: nn.Module, injected: tuple[Tensor, Tensor], name: str, outside: str
) -> None:
    x, y = injected
    batch = TrainingBatch(x, y, torch.Generator().manual_seed(0))
    perturbed = methods.build(name, eps=EPS, outside=outside).perturb(model, batch)
    low, high = (0.0, 1.0) if outside == "clip" else (x.clamp(max=0), x.clamp(min=1))
    assert torch.equal(perturbed, perturbed.clamp(torch.as_tensor(low), torch.as_tensor(high)))
    with pytest.raises(ValueError, match=r"x must lie in bounds \[0, 1\].* with outside='clip'"):
        methods.build(name, eps=EPS).perturb(model, batch)


def test_training_and_evaluation(model: nn.Module, injected: tuple[Tensor, Tensor]) -> None:
    options: dict[str, Any] = {"method": "fgsm", "epochs": 1, "progress": False}
    history = train(
        model, injected, method_options={"eps": EPS, "outside": "clip"},
        evaluation=Evaluation(injected, {"pgd": PGD(EPS, outside="clip", seed=0)}), **options,
    )  # fmt: skip
    assert "pgd" in history.last.accuracies
    with pytest.raises(ValueError, match="with outside='clip'"):
        train(model, injected, method_options={"eps": EPS}, **options)


def test_bad_input(model: nn.Module, injected: tuple[Tensor, Tensor]) -> None:
    x, y = injected
    for make in (
        lambda: PGD(EPS, outside="pull"),  # type: ignore[arg-type]
        lambda: APGD(EPS, outside="pull"),  # type: ignore[arg-type]
        lambda: AutoAttack(EPS, outside="pull"),  # type: ignore[arg-type]
        lambda: methods.free(EPS, outside="pull"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="outside: expected one of 'error', 'clip', 'keep'"):
            make()
    with pytest.raises(ValueError, match="needs bounds that are the same for all images"):
        PGD(EPS, outside="clip", execution=Execution(cuda_graph=True))
    with pytest.raises(ValueError, match="x must be finite"):
        PGD(EPS, outside="keep")(model, x.log(), y)
