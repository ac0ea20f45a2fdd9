"""PGD-10 on a ResNet-18 for CIFAR, Linf 8/255: public tools' loops against each speed-up in turn.

Peers: the loop of public tools that call `loss.backward()` and so compute every weight's gradient,
the textbook loop with `autograd.grad`, and torchattacks and foolbox where they are installed. All
start at x and take the same steps. Correctness first: in float64 every form takes the textbook's
steps.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import textbook
import torch
from textbook import EPS, SIZE, STEPS
from timing import side_by_side
from torch import Tensor, nn

from repsim_fast.attacks import PGD, Execution, adapt
from repsim_fast.attacks.losses import cross_entropy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (width of the first stage, images): 64 is ResNet-18; a batch of it costs seconds on one CPU core.
CASES = [(64, 64), (64, 256)] if DEVICE == "cuda" else [(16, 64), (64, 16), (64, 64)]
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


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.shortcut(x))


def resnet18(width: int) -> nn.Module:
    """ResNet-18 for CIFAR, post-activation, with calibrated BatchNorm, in eval mode."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
    ]  # fmt: skip
    channels = width
    for stage in range(4):
        for stride in (1 if stage == 0 else 2, 1):
            layers.append(Block(channels, width << stage, stride))
            channels = width << stage
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(16, 3, 32, 32))
    return model.eval()


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
        "textbook, autograd.grad": textbook.pgd,
    }
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        found["torchattacks"] = adapt(
            lambda m: torchattacks.PGD(m, eps=EPS, alpha=SIZE, steps=STEPS, random_start=False)
        )
    if importlib.util.find_spec("foolbox"):
        import foolbox

        linf = foolbox.attacks.LinfPGD(abs_stepsize=SIZE, steps=STEPS, random_start=False)
        found["foolbox"] = adapt(
            lambda m: lambda x, y: linf.run(foolbox.PyTorchModel(m, (0, 1)), x, y, epsilon=EPS)
        )
    found |= {name: ours(execution) for name, execution in SPEEDUPS.items()}
    return found


def check(found: dict[str, Attack]) -> None:
    """In float64 rounding flips no sign of a gradient: the same steps, up to rounding."""
    model = resnet18(8).double().to(DEVICE)
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64, device=DEVICE)
    y = model(x).argmax(1)
    want = textbook.pgd(model, x, y)
    for name, attack in found.items():
        if "compiled" in name:
            continue  # compiled once, for float32, below
        error = float((attack(model, x, y) - want).abs().max())
        assert error < 1e-12, f"{name}: {error:.1e}"


def harm(model: nn.Module, adv: Tensor, y: Tensor) -> float:
    """Mean loss that an attack reached, in float32."""
    with torch.no_grad():
        return float(cross_entropy(model(adv), y).mean())


@pytest.mark.parametrize(("width", "batch"), CASES)
def test_pgd_end_to_end(benchmark, record, width, batch):
    torch._dynamo.reset()
    found = attacks()
    check(found)
    # Another precision, and so another row: not held to the same steps, but to the same harm.
    found["folded, channels last, bfloat16"] = ours(
        SPEEDUPS["folded, channels last"], autocast=torch.bfloat16
    )
    model = resnet18(width).to(DEVICE)
    x = torch.rand(batch, 3, 32, 32, device=DEVICE)
    y = model(x).argmax(1)
    images = {name: attack(model, x, y) for name, attack in found.items()}
    want = images["textbook, autograd.grad"]
    clean, reached = harm(model, x, y), harm(model, want, y)
    figures = {
        name: {
            "pixels_that_differ": float((adv - want).abs().gt(1e-6).float().mean()),
            "harm_relative_to_textbook": (harm(model, adv, y) - clean) / (reached - clean),
        }
        for name, adv in images.items()
    }
    for name, figure in figures.items():
        assert abs(figure["harm_relative_to_textbook"] - 1) < 0.02, (name, figure)
    alternatives = {
        name: lambda attack=attack: attack(model, x, y) for name, attack in found.items()
    }
    times = side_by_side(alternatives, rounds=ROUNDS, warmup=1)
    peers = [name for name in times if name.startswith(("textbook", "torchattacks", "foolbox"))]
    strongest = min(times[name].median for name in peers)
    for name, timing in times.items():
        record(
            f"width {width}, batch {batch}, {name}",
            **timing.row(),
            ratio_to_strongest_peer=timing.median / strongest,
            **figures[name],
        )
    benchmark.pedantic(alternatives["folded, channels last"], rounds=3)
