"""How strong L1-APGD is at a number of steps, beside that of its authors.

    pip install --no-deps pyautoattack
    python benchmarks/l1_attack.py --data CIFAR10 [--work FOLDER] [--out FILE.json]

Small networks on digits and CIFAR-10, trained by themselves and adversarially, with several seeds;
both attacks have the three phases of AutoAttack, cross-entropy, one restart, the same steps, images
and radii. A row counts the images that a network still classifies after an attack, over all of its
seeds. A run that was stopped goes on where it was, at the same commit. Status 1: at some number of
steps more are left than by the authors' attack.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS)]
from timing import machine, write_json  # noqa: E402

from repsim_fast.attacks import APGD  # noqa: E402
from repsim_fast.data import ImageData, load  # noqa: E402
from repsim_fast.training import train  # noqa: E402

PEER = "pyautoattack"
STEPS = (10, 20, 50, 100)
IMAGES = 300


@dataclass(frozen=True)
class Kind:
    """How networks of a data set are trained, and the radii at which they are attacked.

    The first ``chosen`` seeds took part in choosing where our attack begins; the others did not.
    """

    data: str
    method: str
    radii: tuple[float, ...]
    options: dict[str, Any]
    epochs: int
    seeds: int
    chosen: int

    def __str__(self) -> str:
        return f"{self.data}, {self.method}"


KINDS = (
    Kind("digits", "standard", (2.0, 3.0), {}, 15, 4, 2),
    Kind("digits", "pgd", (3.0, 5.0), {"norm": "l2", "eps": 0.75, "steps": 5}, 15, 4, 2),
    Kind("cifar10", "standard", (2.0, 4.0), {}, 8, 2, 1),
    Kind("cifar10", "pgd", (6.0, 12.0), {"norm": "l2", "eps": 0.5, "steps": 1}, 8, 2, 1),
)
TRAINING_IMAGES = 3000

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def ours(eps: float, steps: int, seed: int) -> Attack:
    return APGD(eps, norm="l1", steps=steps, seed=seed)


def theirs(eps: float, steps: int, seed: int) -> Attack:
    from pyautoattack.autopgd_base import APGDAttack

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        run = APGDAttack(
            model, n_iter=steps, norm="L1", eps=eps, seed=seed, use_largereps=True, device="cpu"
        )
        return run.perturb(x, y)

    return attack


def network(kind: Kind, seed: int) -> nn.Module:
    """A small convolutional network, untrained."""
    channels, side = (1, 8) if kind.data == "digits" else (3, 32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * (side // 4) ** 2, 10),
        )


def trained(kind: Kind, seed: int, images: ImageData, work: Path) -> nn.Module:
    """A trained network, kept in the folder."""
    net = network(kind, seed)
    kept = work / f"{kind.data}-{kind.method}-{seed}.pt"
    if kept.exists():
        net.load_state_dict(torch.load(kept, weights_only=True))
    else:
        train(
            net, images, method=kind.method, method_options=kind.options, epochs=kind.epochs,
            lr=0.05, seed=seed, progress=False,
        )  # fmt: skip
        work.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), kept)
    return net.eval().requires_grad_(False)


@torch.no_grad()
def robust(net: nn.Module, x: Tensor, y: Tensor, eps: float, attack: Attack) -> int:
    """Images that are classified correctly before and after; the attack keeps to its radius."""
    adv = attack(net, x, y)
    length = (adv - x).abs().flatten(1).sum(1)
    if not bool((length <= eps * (1 + 1e-4)).all()) or adv.min() < 0 or adv.max() > 1:
        raise AssertionError(f"left the ball or the box: {float(length.max())} of {eps}")
    return int(((net(x).argmax(1) == y) & (net(adv).argmax(1) == y)).sum())


def batches(
    data: dict[str, str], work: Path, seeds: int
) -> Iterator[tuple[Kind, int, nn.Module, Any]]:
    """Each network, with its images and labels."""
    for kind in KINDS:
        limit = None if kind.data == "digits" else TRAINING_IMAGES
        images = load(data[kind.data], "train", limit=limit)
        unseen = load(data[kind.data], "test", limit=IMAGES)
        x = unseen.images.float() / 255 if unseen.images.dtype == torch.uint8 else unseen.images
        for seed in range(min(seeds, kind.seeds)):
            yield kind, seed, trained(kind, seed, images, work), (x, unseen.labels)


def left(
    kind: Kind, seed: int, net: nn.Module, batch: tuple[Tensor, Tensor], eps: float, n: int
) -> dict[str, int]:
    """Images of a network that each attack leaves robust."""
    attacks = {"ours": ours(eps, n, seed), "theirs": theirs(eps, n, seed)}
    return {name: robust(net, *batch, eps, attack) for name, attack in attacks.items()}


def counted(
    data: dict[str, str], log: Path, steps: tuple[int, ...], seeds: int
) -> dict[str, dict[str, int]]:
    """Robust images of each network, radius and number of steps.

    Goes on after those that ``log`` has.
    """
    counts: dict[str, dict[str, int]] = json.loads(log.read_text()) if log.exists() else {}
    for kind, seed, net, batch in batches(data, log.parent, seeds):
        for eps, n in itertools.product(kind.radii, steps):
            key = name(kind, seed, eps, n)
            if key not in counts:
                counts[key] = left(kind, seed, net, batch, eps, n)
                write_json(log, counts)
                print(key, counts[key], flush=True)
    return counts


def name(kind: Kind, seed: int, eps: float, n: int) -> str:
    """Of a run, in the log."""
    return f"{kind}, seed {seed}, eps {eps:g}, {n} steps"


def rows(
    counts: dict[str, dict[str, int]], steps: tuple[int, ...], seeds: int
) -> list[dict[str, Any]]:
    """Robust images by kind of network and radius, by data and whether the network took part in
    choosing, and of all of them."""
    found: dict[str, dict[str, Any]] = {}
    for kind, n in itertools.product(KINDS, steps):
        for seed, eps in itertools.product(range(min(seeds, kind.seeds)), kind.radii):
            took_part = "took part in choosing" if seed < kind.chosen else "took no part"
            for case in (
                f"{kind}, eps {eps:g}: {n} steps",
                f"{kind.data}, {took_part}: {n} steps",
                f"{kind.data}: {n} steps",
                f"{n} steps",
            ):
                row = found.setdefault(
                    case, {"case": case, "runs": 0, "images": 0, "ours": 0, "theirs": 0}
                )
                row["runs"] += 1
                row["images"] += IMAGES
                for who, count in counts[name(kind, seed, eps, n)].items():
                    row[who] += count
    return list(found.values())


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True, help="CIFAR-10, as for `repsim-fast train`")
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=4, help="networks of a kind, at most")
    parser.add_argument("--work", type=Path, default=Path("out/l1_attack"))
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results" / "l1_attack.json")
    options = parser.parse_args()
    try:
        peer = version(PEER)
    except PackageNotFoundError:
        sys.exit(f"{PEER} is not installed: pip install --no-deps {PEER}")
    torch.set_num_threads(1)
    data = {"digits": "digits", "cifar10": options.data}
    about = {**machine(), PEER: peer}
    log = options.work / f"{about['commit']}.json"
    counts = counted(data, log, tuple(options.steps), options.seeds)
    found = rows(counts, tuple(options.steps), options.seeds)
    write_json(options.out, {"machine": about, "rows": found, "runs": counts})
    for row in found:
        print(
            f"{row['case']:40} {row['images']:5} images, robust {row['ours']:4} / {row['theirs']:4}"
        )
    of_all = [row for row in found if row["case"] in {f"{n} steps" for n in options.steps}]
    return int(any(row["ours"] > row["theirs"] for row in of_all))


if __name__ == "__main__":
    sys.exit(main())
