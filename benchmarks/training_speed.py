"""An epoch of robust training: the trainer against the loops that people write.

    python benchmarks/training_speed.py [--data FOLDER] [--methods pgd trades n-fgsm] [--threads 1]
        [--batches N] [--learned-on N] [--rounds N] [--wall] [--precisions float32 bfloat16]

WRN-16-2 on images of the shape of CIFAR-10's, in batches of 128: PGD-AT, TRADES and N-FGSM by
textbook loops in plain float32 torch (`textbook_training.py`), by the trainer in float32 and, where
the processor multiplies it or it is asked for, with autocast to bfloat16, and by torchattacks in a
loop where it is installed. The loops run in processes of their own, as scripts without this library
do. Beside them the network's convolutions alone: a bound for all. Before
anything is timed, a small network's first step has the textbook's loss, in float64 to rounding;
with --data, clean and robust accuracy after a short run are the textbook's within the noise of
three seeds. Ratios go to
results/<machine>/training_speed.json; rows of methods that were not asked for stay. Times are the
process's own on the processor, so that they hold on a machine that has other work, or with --wall
those of a clock on the wall, the only ones that mean something with several threads.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS)]
import textbook_training as textbook  # noqa: E402
from convolutions import Passes, convolutions_alone  # noqa: E402
from own_process import in_own_process  # noqa: E402
from timing import machine, machine_name, merged, side_by_side, write_json  # noqa: E402

from repsim_fast import models  # noqa: E402
from repsim_fast._core.precision import native_half  # noqa: E402
from repsim_fast.attacks import PGD  # noqa: E402
from repsim_fast.data import load  # noqa: E402
from repsim_fast.training import Optimisation, evaluate, train  # noqa: E402

BATCH = 128
SEEDS = (0, 1, 2)
LEARNED_ON, TESTED_ON, LEARNED_EPOCHS = 2560, 512, 3
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """A method, its textbook loop, and both without random starts where they can do without.

    Attributes:
        name: Of the trainer's method.
        options: Of the trainer's method.
        loss: The textbook's.
        fixed_options: More options, for the same numbers in each run. In eval mode: batch
            statistics let the loss of one sample into the gradient of another, and the trainer's
            has other weights there than the cross-entropy.
        fixed_loss: The textbook's for these.
        tolerance: Relative difference of the first loss in float64. TRADES starts at random
            points, which move it.
        batches: Of the timed epoch.
        passes: Of a batch that no way does without.
    """

    name: str
    options: dict[str, Any]
    loss: textbook.Loss
    fixed_options: dict[str, Any]
    fixed_loss: textbook.Loss
    tolerance: float
    batches: int
    passes: Passes


LONG = {"steps": textbook.STEPS, "step_size": textbook.SIZE}
CASES = {
    case.name: case
    for case in (
        Case(
            "pgd", LONG, textbook.pgd_loss, {"random_start": False},
            functools.partial(textbook.pgd_loss, random_start=False), 1e-9, 3,
            Passes(attacking=textbook.STEPS, training=1),
        ),
        Case(
            "trades", LONG, textbook.trades_loss, {}, textbook.trades_loss, 1e-3, 3,
            Passes(attacking=textbook.STEPS, training=2),
        ),
        Case(
            "n-fgsm", {"model_mode": "train"}, textbook.n_fgsm_loss,
            {"noise": 0.0, "model_mode": "eval"},
            functools.partial(textbook.n_fgsm_loss, noise=0.0, training=False), 1e-9, 12,
            Passes(attacking=1, training=1),
        ),
    )
}  # fmt: skip
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def ours(
    net: nn.Module, data: Any, case: Case, *, autocast: torch.dtype | None = None, epochs: int = 1,
    batch: int = BATCH, seed: int = 0, **options: Any,
) -> float:  # fmt: skip
    """Train as the textbook loop does; the last epoch's mean loss."""
    history = train(
        net, data, method=case.name,
        method_options={"eps": textbook.EPS, **case.options, **options}, epochs=epochs,
        batch_size=batch, lr=textbook.LR, schedule="constant", seed=seed, progress=False,
        optimisation=Optimisation(
            momentum=textbook.MOMENTUM, weight_decay=textbook.WEIGHT_DECAY, autocast=autocast
        ),
    )  # fmt: skip
    return history.last.loss


def loader(data: Pair, seed: int = 0) -> DataLoader[Any]:
    """Batches in random order, as textbook loops have them."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(*data), batch_size=BATCH, shuffle=True, generator=generator)


def check(case: Case, precisions: Sequence[str] = tuple(PRECISIONS)) -> dict[str, float]:
    """Relative differences of the first step's loss; the trainer's is of the textbook's value."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(32, 3, 8, 8, dtype=torch.float64, generator=generator)
    y = torch.arange(32) % 10
    found = {}
    for name, dtype, autocast, allowed in (
        ("float64", torch.float64, None, case.tolerance),
        ("bfloat16", torch.float32, torch.bfloat16, 0.02),
    ):
        if name not in ("float64", *precisions):
            continue
        nets = [models.build("wrn-10-1", num_classes=10, seed=0).to(dtype) for _ in range(2)]
        images = x.to(dtype)
        torch.manual_seed(0)
        want = textbook.train(nets[0], [(images, y)], case.fixed_loss)
        got = ours(nets[1], (images, y), case, autocast=autocast, batch=32, **case.fixed_options)
        found[f"first_loss_error_{name}"] = error = abs(got - want) / abs(want)
        if not error <= allowed:
            sys.exit(f"{case.name}, {name}: the first step's loss is {got}, the textbook's {want}")
    return found


def accuracies(
    case: Case, data: Pair, unseen: Pair, precisions: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Clean and robust accuracy after a short run, by way of training, one for each seed.

    WRN-10-1 on images of half the side: what differs between the ways does so at any size.
    """
    attack = PGD(textbook.EPS, step_size=textbook.SIZE, steps=10, seed=0)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in SEEDS:
        for way in ("textbook", *precisions):
            net = models.build("wrn-10-1", num_classes=10, seed=seed)
            if way == "textbook":
                torch.manual_seed(seed)
                batches = [b for e in range(LEARNED_EPOCHS) for b in loader(data, seed + 100 * e)]
                textbook.train(net, batches, case.loss)
            else:
                autocast = PRECISIONS[way]
                ours(net, data, case, autocast=autocast, epochs=LEARNED_EPOCHS, seed=seed)
            score = evaluate(net, unseen, attack)
            kept = found.setdefault(way, {"clean": [], "robust": []})
            kept["clean"].append(score.clean)
            kept["robust"].append(score.robust or 0.0)
    return found


def check_accuracies(case: Case, found: dict[str, dict[str, list[float]]]) -> None:
    """Means differ by at most three standard errors of their difference, of seeds and images."""
    for way in found.keys() - {"textbook"}:
        for kind in ("clean", "robust"):
            groups = [found[w][kind] for w in ("textbook", way)]
            mean = statistics.fmean(groups[0] + groups[1])
            images = 2 * mean * (1 - mean) / (TESTED_ON * len(SEEDS))
            seeds = sum(statistics.variance(group) / len(group) for group in groups)
            difference = statistics.fmean(groups[1]) - statistics.fmean(groups[0])
            if abs(difference) > 3 * (seeds + images) ** 0.5:
                sys.exit(f"{case.name}, {way}: {kind} accuracies {groups[1]}, textbook {groups[0]}")


def fresh() -> nn.Module:
    """The network as it is before."""
    return models.build("wrn-16-2", num_classes=10, seed=0)


def images(batches: int) -> Pair:
    """What an epoch of so many batches is trained on."""
    n = BATCH * batches
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 32, 32, generator=generator), torch.arange(n) % 10


def textbook_epoch(loss: textbook.Loss, batches: int) -> Callable[[], float]:
    """An epoch of a loop, for a process of its own."""
    data = images(batches)
    return lambda: textbook.train(fresh(), loader(data), loss)


def loops(case: Case) -> dict[str, textbook.Loss]:
    """The losses of the loops that there are."""
    found: dict[str, textbook.Loss] = {"textbook": case.loss}
    if case.name == "pgd":
        found["textbook, loss.backward() in the attack"] = textbook.pgd_loss_backward
        if importlib.util.find_spec("torchattacks"):
            found["torchattacks in a loop"] = _torchattacks_loss
    return found


def ways(case: Case, batches: int, precisions: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """An epoch by each way of this library, from the same beginning as the loops'."""
    data, found = images(batches), {}
    for name in precisions:
        dtype = PRECISIONS[name]
        found[f"trainer, {name}"] = functools.partial(_epoch, data, case, autocast=dtype)
        if case.name != "n-fgsm":  # whose attack in training mode has no norm to fold
            found[f'trainer, {name}, execution="fast"'] = functools.partial(
                _epoch, data, case, autocast=dtype, execution="fast"
            )
        batch = convolutions_alone(fresh(), data[0][:BATCH], case.passes, dtype or torch.float32)
        found[f"convolutions alone, {name}"] = functools.partial(_repeated, batch, batches)
    return found


def _repeated(batch: Callable[[], None], times: int) -> None:
    for _ in range(times):
        batch()


def _epoch(data: Pair, case: Case, **options: Any) -> float:
    return ours(fresh(), data, case, **options)


def _torchattacks_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    import torchattacks

    attack = torchattacks.PGD(
        model, eps=textbook.EPS, alpha=textbook.SIZE, steps=textbook.STEPS, random_start=True
    )
    adv = attack(x, y)
    model.train()
    return nn.functional.cross_entropy(model(adv), y)


def main() -> None:
    """Checks, then times, and a row a way of each method as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", help="CIFAR-10 as for `repsim-fast train`, for accuracies")
    parser.add_argument("--methods", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, help="of the timed epoch (default: the method's)")
    parser.add_argument("--learned-on", type=int, default=LEARNED_ON, help="images, for accuracies")
    parser.add_argument("--wall", action="store_true", help="time by the clock on the wall")
    parser.add_argument("--threads", type=int, default=1)
    native = tuple(PRECISIONS)[: 2 if native_half(torch.device("cpu")) else 1]
    parser.add_argument("--precisions", nargs="+", choices=tuple(PRECISIONS), default=native)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads > 1 and not options.wall:
        parser.error("the process's time counts each of several threads: use --wall")
    clock = time.perf_counter if options.wall else time.process_time
    torch.set_num_threads(options.threads)
    out = options.out or BENCHMARKS / "results" / machine_name() / "training_speed.json"
    where = machine()
    where["bfloat16"] = "AMX" if torch.cpu._is_amx_tile_supported() else "no AMX"
    rows: list[dict[str, Any]] = []
    for name in options.methods:
        case = CASES[name]
        errors = check(case, options.precisions)
        learned: dict[str, Any] = {}
        if options.data:
            train_set, test_set = (
                load(options.data, split, size=16, limit=n, seed=0)
                for split, n in (("train", options.learned_on), ("test", TESTED_ON))
            )
            learned = accuracies(
                case,
                (train_set.images.float() / 255, train_set.labels),
                (test_set.images.float() / 255, test_set.labels),
                options.precisions,
            )
            check_accuracies(case, learned)
        batches = options.batches or case.batches
        with contextlib.ExitStack() as stack:
            alternatives: dict[str, Callable[[], Any]] = {
                way: stack.enter_context(in_own_process(textbook_epoch, loss, batches, clock=clock))
                for way, loss in loops(case).items()
            }
            alternatives |= ways(case, batches, options.precisions)
            # Not warmed up: the check has run the code, and medians leave out a first round.
            times = side_by_side(alternatives, rounds=options.rounds, warmup=0, clock=clock)
        for way, timing in times.items():
            row = {
                "case": f"{name}, {way}",
                **timing.row(),
                "seconds_a_batch": timing.median / batches,
                "clock": "wall" if options.wall else "process",
                "batches": batches,
                "rounds": options.rounds,
                "ratio_to_textbook": timing.median / times["textbook"].median,
                **(errors if way.startswith("trainer") else {}),
            }
            if (kind := way.removeprefix("trainer, ")) in learned:
                row["accuracies_of_three_seeds"] = learned[kind]
                row["learned_on"] = options.learned_on
            rows.append(row)
            print("  ".join(f"{k}={v}" for k, v in row.items()), flush=True)
        held = json.loads(out.read_text()) if out.exists() else {"machine": where, "rows": []}
        write_json(out, merged(held, where, rows))
    if importlib.util.find_spec("torchattacks") is None:
        print("torchattacks is not installed: no row")


if __name__ == "__main__":
    main()
