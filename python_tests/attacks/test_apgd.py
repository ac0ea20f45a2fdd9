"""APGD: feasible, at least as strong as PGD of the same cost, quiet and economical."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import APGD, PGD, APGDTargeted, AutoAttack, autoattack

RADIUS = {"linf": 0.02, "l2": 0.3, "l1": 2.0}
ORDER = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}


@pytest.fixture
def answers(model: nn.Module, images: Tensor) -> Tensor:
    return model.eval()(images).argmax(1)


def margins(model: nn.Module, adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model.eval()(adv)
    label = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    return logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) - label


@pytest.mark.parametrize("norm", RADIUS)
@pytest.mark.parametrize("kind", [APGD, APGDTargeted])
def test_feasible(
    model: nn.Module, images: Tensor, answers: Tensor, norm: str, kind: type[APGD]
) -> None:
    adv = kind(RADIUS[norm], norm=norm, steps=15, seed=0)(model, images, answers)
    length = torch.linalg.vector_norm((adv - images).flatten(1), ORDER[norm], dim=1)
    assert (length <= RADIUS[norm] * (1 + 1e-5)).all()
    assert adv.min() >= 0
    assert adv.max() <= 1


@pytest.mark.parametrize("norm", RADIUS)
def test_at_least_as_strong_as_pgd(
    model: nn.Module, images: Tensor, answers: Tensor, norm: str
) -> None:
    eps = RADIUS[norm]
    pgd = PGD(eps, norm=norm, steps=30, seed=0)(model, images, answers)
    apgd = APGD(eps, norm=norm, steps=30, seed=0)(model, images, answers)
    fooled_by_pgd = (margins(model, pgd, answers) > 0).sum()
    assert (margins(model, apgd, answers) > 0).sum() >= fooled_by_pgd


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_losses(model: nn.Module, images: Tensor, answers: Tensor, loss: str) -> None:
    adv = APGD(0.05, loss=loss, steps=20, seed=0)(model, images, answers)
    assert (margins(model, adv, answers) > 0).float().mean() > 0.8


def test_a_fooled_sample_is_left_alone(model: nn.Module, images: Tensor, answers: Tensor) -> None:
    """Samples leave the batch once they fool the model, and no step is wasted on them."""
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    APGD(0.03, steps=20, restarts=2, seed=0)(model, images, answers)
    handle.remove()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 12


def test_number_of_passes_is_the_number_of_steps(images: Tensor, answers: Tensor) -> None:
    calls = 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return nn.functional.one_hot(answers, 5) * 100.0 + x.flatten(1)[:, :5]

    APGD(0.01, steps=10, seed=0)(model, images, answers)
    assert calls == 11


def test_global_random_state_is_untouched(
    model: nn.Module, images: Tensor, answers: Tensor
) -> None:
    """Public APGDs seed the global generator, which resets the data order of a training."""
    state = torch.get_rng_state()
    first = APGD(0.01, steps=5, seed=0)(model, images, answers)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, APGD(0.01, steps=5, seed=0)(model, images, answers))


def test_eps_zero_gives_back_the_images(model: nn.Module, images: Tensor, answers: Tensor) -> None:
    for norm in RADIUS:
        adv = APGD(0.0, norm=norm, steps=3, seed=0)(model, images, answers)
        assert torch.equal(adv, images), norm


def test_radius_of_each_sample(model: nn.Module, images: Tensor, answers: Tensor) -> None:
    eps = torch.linspace(0, 0.05, 12)
    adv = APGD(eps, steps=10, seed=0)(model, images, answers)
    assert ((adv - images).flatten(1).abs().amax(1) <= eps * (1 + 1e-6)).all()


def test_too_few_classes_for_dlr(images: Tensor) -> None:
    y = torch.zeros(12, dtype=torch.int64)

    def two(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2] + torch.tensor([9.0, 0.0])

    with pytest.raises(ValueError, match="needs at least 3 classes, got 2"):
        APGD(0.1, loss="dlr")(two, images, y)
    with pytest.raises(ValueError, match="needs at least 4 classes, got 2"):
        APGDTargeted(0.1)(two, images, y)
    APGDTargeted(0.1, loss="ce", steps=3)(two, images, y)


def test_auto_attack_keeps_the_worst_of_its_stages(
    model: nn.Module, images: Tensor, answers: Tensor
) -> None:
    def fooled(stages: tuple[str, ...]) -> Tensor:
        adv = AutoAttack(0.012, stages=stages, steps=10, seed=0)(model, images, answers)
        assert (adv - images).abs().max() <= 0.012 + 6e-8  # one rounding of x + eps
        return (margins(model, adv, answers) > 0).sum()

    first = fooled(("apgd-ce",))
    assert fooled(("apgd-ce", "apgd-t")) >= first


def test_auto_attack_says_which_package_is_missing_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyautoattack", None)
    monkeypatch.setitem(__import__("sys").modules, "autoattack", None)
    with pytest.raises(ImportError, match="pip install pyautoattack"):
        AutoAttack(0.01)
    AutoAttack(0.01, stages=("apgd-ce", "apgd-t"))


@pytest.mark.parametrize("norm", RADIUS)
def test_auto_attack_with_the_package(
    model: nn.Module, images: Tensor, answers: Tensor, norm: str
) -> None:
    pytest.importorskip("pyautoattack", reason="FAB and Square come from the pyautoattack package")
    state = torch.get_rng_state()
    attack = AutoAttack(RADIUS[norm] / 3, norm=norm, steps=5, queries=20, seed=0)
    adv = attack(model, images, answers)
    length = torch.linalg.vector_norm((adv - images).flatten(1), ORDER[norm], dim=1)
    assert (length <= RADIUS[norm] / 3 * (1 + 1e-5)).all()
    assert torch.equal(state, torch.get_rng_state())


def test_stages_of_a_package_see_logits_of_one_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mixed precision and of models that answer with more: packages know float32 tensors."""
    seen: list[torch.dtype] = []

    def stage(predict: Any, **_: Any) -> SimpleNamespace:
        def perturb(x: Tensor, y: Tensor) -> Tensor:
            logits = predict(x)
            seen.append(logits.dtype)
            loss = torch.empty(len(x))
            loss[torch.arange(len(x))] = logits[torch.arange(len(x)), y]
            return x

        return SimpleNamespace(perturb=perturb)

    package = SimpleNamespace(
        fab_pt=SimpleNamespace(FABAttack_PT=stage), square=SimpleNamespace(SquareAttack=stage)
    )
    monkeypatch.setattr(autoattack, "_package", lambda: package)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    attack = AutoAttack(1e-6, stages=("fab-t", "square"), steps=1, seed=0)
    x = torch.rand(4, 3, 2, 2)
    y = net(x).argmax(1)
    attack(lambda z: SimpleNamespace(logits=net(z)), x, y)
    with torch.autocast("cpu", torch.bfloat16):
        attack(net, x, net(x).argmax(1))
    assert seen == [torch.float32] * 4


@pytest.mark.parametrize(
    ("norm", "restarts", "targets"), [("linf", 1, 9), ("l2", 1, 9), ("l1", 5, 5)]
)
def test_autoattack_has_the_standard_settings_of_each_norm(
    norm: str, restarts: int, targets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    class Recorded(APGD):
        def __init__(self, eps: float, **options: Any) -> None:
            made.append(options)
            super().__init__(eps, **{k: v for k, v in options.items() if k != "n_targets"})

    monkeypatch.setattr(autoattack, "APGD", Recorded)
    monkeypatch.setattr(autoattack, "APGDTargeted", lambda eps, **o: Recorded(eps, **o))
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    x = torch.rand(4, 3, 2, 2)
    y = net(x).argmax(1)
    AutoAttack(1e-6, norm=norm, stages=("apgd-ce", "apgd-t"), steps=1)(net, x, y)
    assert made[0]["restarts"] == restarts
    assert made[1]["n_targets"] == targets
    assert made[1]["loss"] == "dlr"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_autoattack_of_networks_that_draw_has_the_settings_of_rand(norm: str) -> None:
    attack = AutoAttack(1.0, norm=norm, draws=20)
    assert attack.stages == ("apgd-ce", "apgd-dlr")
    assert attack.restarts == 1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_autoattack_of_few_classes(n_classes: int) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, n_classes))
    x = torch.rand(20, 3, 2, 2)
    y = net(x).argmax(1)
    stages = ("apgd-t",)
    adv = AutoAttack(0.3, stages=stages, steps=5, seed=0)(net, x, y)
    assert (net(adv).argmax(1) != y).float().mean() > 0.5
    with pytest.raises(ValueError, match="targeted DLR loss needs at least 4 classes"):
        AutoAttack(0.001, stages=stages, steps=5, targeted_loss="dlr")(net, x, y)
    with pytest.raises(ValueError, match="targeted_loss must be"):
        AutoAttack(0.1, targeted_loss="margin")
