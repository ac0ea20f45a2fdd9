"""PGD-10 on a ResNet-18 for CIFAR, Linf 8/255: public tools' loops against each speed-up in turn.

Peers: the loop of public tools that call `loss.backward()` and so compute every weight's gradient,
the textbook loop with `autograd.grad`, and torchattacks where it is installed. All start at x and
take the same steps. Correctness first: in float64 every form takes the textbook's steps.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from timing import side_by_side
from torch import Tensor, nn

from repsim_fast.attacks import PGD, Execution, adapt

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

EPS, SIZE, STEPS = 8 / 255, 2 / 255, 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# A step costs seconds on one CPU core.
BATCHES = (64, 256) if DEVICE == "cuda" else (16, 64)
ROUNDS = 9 if DEVICE == "cuda" else 5

FOLD = {"fold_batchnorm": True}
LAST = {"channels_last": True}
SPEEDUPS = {
    "ours, exact": Execution(),
    "channels last": Execution(**LAST),
    "folded": Execution(**FOLD),
    "folded, channels last": Execution(**FOLD, **LAST),
    "compiled": Execution(compile=True),
    "folded, channels last, compiled": Execution(**FOLD, **LAST, compile=True),
}
if DEVICE == "cuda":
    SPEEDUPS["graph"] = Execution(cuda_graph=True)
    SPEEDUPS["folded, channels last, graph"] = Execution(**FOLD, **LAST, cuda_graph=True)

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def resnet18() -> nn.Module:
    """torchvision's, with the stem for CIFAR and calibrated BatchNorm."""
    block = torchvision.models.resnet.BasicBlock
    model = torchvision.models.ResNet(block, [2, 2, 2, 2], num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(16, 3, 32, 32))
    return model.eval()


def textbook(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    adv = x.clone()
    for _ in range(STEPS):
        adv.requires_grad_()
        loss = nn.functional.cross_entropy(model(adv), y)
        (grad,) = torch.autograd.grad(loss, adv)
        adv = adv.detach() + SIZE * grad.sign()
        adv = (x + (adv - x).clamp(-EPS, EPS)).clamp(0, 1)
    return adv.detach()


def with_weight_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    adv = x.clone()
    for _ in range(STEPS):
        adv.requires_grad_()
        adv.grad = None
        nn.functional.cross_entropy(model(adv), y).backward()
        adv = adv.detach() + SIZE * adv.grad.sign()
        adv = (x + (adv - x).clamp(-EPS, EPS)).clamp(0, 1)
    model.zero_grad()
    return adv.detach()


def ours(execution: Execution, **options) -> PGD:
    return PGD(EPS, step_size=SIZE, steps=STEPS, random_start=False, execution=execution, **options)


def attacks() -> dict[str, Attack]:
    found: dict[str, Attack] = {
        "textbook, backward": with_weight_gradients,
        "textbook, autograd.grad": textbook,
    }
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        found["torchattacks"] = adapt(
            lambda m: torchattacks.PGD(m, eps=EPS, alpha=SIZE, steps=STEPS, random_start=False)
        )
    found |= {name: ours(execution) for name, execution in SPEEDUPS.items()}
    return found


def check(found: dict[str, Attack]) -> None:
    """In float64 rounding flips no sign of a gradient: the same steps, up to rounding."""
    model = resnet18().double().to(DEVICE)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64, device=DEVICE)
    y = model(x).argmax(1)
    want = textbook(model, x, y)
    for name, attack in found.items():
        if "compiled" in name:
            continue  # compiled once, for float32, below
        error = float((attack(model, x, y) - want).abs().max())
        assert error < 1e-12, f"{name}: {error:.1e}"


@pytest.mark.parametrize("batch", BATCHES)
def test_pgd_end_to_end(benchmark, record, batch):
    found = attacks()
    model = resnet18()
    check(found)
    model.to(DEVICE)
    x = torch.rand(batch, 3, 32, 32, device=DEVICE)
    y = model(x).argmax(1)
    want = textbook(model, x, y)
    differing = {
        name: float((attack(model, x, y) - want).abs().gt(1e-6).float().mean())
        for name, attack in found.items()
    }
    # Rounding decides the sign of gradients near zero, and so single pixels, in every form.
    assert max(differing.values()) < 0.05, differing
    alternatives = {
        name: lambda attack=attack: attack(model, x, y) for name, attack in found.items()
    }
    times = side_by_side(alternatives, rounds=ROUNDS, warmup=1)
    peers = [name for name in times if name.startswith(("textbook", "torchattacks"))]
    strongest = min(times[name].median for name in peers)
    for name, timing in times.items():
        record(
            f"batch {batch}, {name}",
            **timing.row(),
            ratio_to_strongest_peer=timing.median / strongest,
            pixels_that_differ=differing[name],
        )
    benchmark.pedantic(alternatives["folded, channels last"], rounds=3)
