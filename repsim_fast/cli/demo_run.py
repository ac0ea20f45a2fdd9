"""The main job on images that need no download: what does robust training change inside a network?

A standard and a robust network are trained on handwritten digits and compared layer
by layer. Seeded, and with a fixed number of threads, so that one machine gives one result.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from repsim_fast import data, models
from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast.attacks import PGD
from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.report.folder import write_folder
from repsim_fast.training import Accuracy, evaluate, train

__all__ = ["Demo", "run_demo"]

MODEL = "resnet-digits"
STANDARD, ROBUST = "standard", "robust"
_CHECKPOINTS = (f"{STANDARD}.safetensors", f"{ROBUST}.safetensors")
# At this radius, a fifth of the way from black to white, a person still reads the digits and a
# standard network fails on nearly all of them.
EPS = 0.2
EPOCHS = 30
TRAIN_STEPS, TEST_STEPS = 7, 20
# Convolutions on 8x8 images are too small to share between threads: a second core saves a third of
# the time on an idle machine and costs a multiple of it on a busy one. One thread also makes the
# result independent of the number of cores.
THREADS = 1
# 599 test images give ten batches, enough for a standard error; CKA does not depend on it.
COMPARE_BATCH = 64
# Differences of less than this many standard errors are not called differences.
NOTEWORTHY = 2.0


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        accuracy: Clean and robust accuracy on the test images, by network.
        result: The comparison of the two networks.
        report: The HTML file to open.
        seconds: Wall time in total.
    """

    accuracy: dict[str, Accuracy]
    result: SimilarityResult
    report: Path
    seconds: float


def run_demo(
    folder: str | os.PathLike[str],
    *,
    epochs: int = EPOCHS,
    eps: float = EPS,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Demo:
    """Train a standard and a robust network on digits, compare them, write pictures and a report.

    Args:
        folder: Where the two checkpoints and the files of the comparison go; made if missing.
        epochs: Epochs of each training.
        eps: Radius of the attack in training and test, Linf, in (0, 1].
        limit: Images of each split; None for all.
        seed: Of weights, batches and attacks.
        progress: Show progress bars.
        say: Called with a line at the start of each stage.

    Returns:
        Accuracies, comparison and the path of the report.

    Raises:
        OSError: The folder cannot be written to; found out before the training.
        ValueError: A number out of range.
    """
    start = perf_counter()
    path = check_writable(folder)
    images = data.load("digits", "train", limit=limit)
    unseen = data.load("digits", "test", limit=limit)
    networks, accuracy = {}, {}
    plans: dict[str, tuple[str, dict[str, Any]]] = {
        STANDARD: ("standard", {}),
        ROBUST: ("pgd", {"eps": eps, "steps": TRAIN_STEPS}),
    }
    with only_writer(path / "demo", *_CHECKPOINTS), _threads(THREADS):
        for name, (method, options) in plans.items():
            say(f"training the {name} network: {epochs} epochs on {len(images):,} digits")
            network = models.build(MODEL, num_classes=10, in_channels=1, seed=seed)
            train(
                network,
                images,
                method=method,
                method_options=options,
                epochs=epochs,
                seed=seed,
                progress=progress,
            )
            attack = PGD(eps, steps=TEST_STEPS, seed=seed)
            accuracy[name] = evaluate(network, unseen, attack, progress=progress)
            models.save_checkpoint(
                path / f"{name}.safetensors",
                network,
                name=MODEL,
                num_classes=10,
                in_channels=1,
                method=method,
                method_options=options,
                epochs=epochs,
                seed=seed,
                data="digits",
                clean_accuracy=accuracy[name].clean,
                robust_accuracy=accuracy[name].robust,
                attack=f"PGD, {TEST_STEPS} steps, eps {eps:g}, {len(unseen)} test images",
            )
            networks[name] = network
        say(f"comparing all their layers on {len(unseen)} unseen digits")
        result = compare(networks, data=unseen, batch_size=COMPARE_BATCH, seed=seed)
        say("drawing heat maps, writing report")
        report = write_folder(
            path,
            result,
            title="What robust training changes inside a network",
            introduction=_introduction(accuracy, result, len(images), eps),
            tables={"Accuracy on unseen digits": _accuracy_rows(accuracy)},
        )
    return Demo(accuracy, result, report, perf_counter() - start)


def _introduction(
    accuracy: dict[str, Accuracy], result: SimilarityResult, n_images: int, eps: float
) -> str:
    """The story for a newcomer, with the figures and verdicts of this run."""
    standard, robust = accuracy[STANDARD], accuracy[ROBUST]
    return "\n\n".join(
        (
            f"Two networks of one architecture, with the same weights at the start, were trained "
            f"on {n_images:,} handwritten digits. The standard network saw the images as they are. "
            f"The robust network saw each image altered in the way that confuses it most, every "
            f"pixel by up to {eps:g} of the way from black to white (adversarial training).",
            f"Of digits they have never seen, the standard network reads {standard.clean:.1%} "
            f"correctly and the robust one {robust.clean:.1%}. When those digits are altered to "
            f"confuse them, {standard.robust:.1%} and {robust.robust:.1%} are left.",
            "What is different inside? The heat maps compare every layer with every other by CKA: "
            "1 means that two layers find the same images alike, 0 that they have nothing in "
            "common. " + _verdicts(result),
            "What follows the sign ± is a standard error: how much a figure depends on the choice "
            "of test images. It does not cover the luck of a training, which another seed would "
            "show. Digits are an easy task, for which most layers do much the same; on photographs "
            "the same differences between standard and robust networks were found to be larger "
            "(Cianfarani et al., 2022).",
        )
    )


def _verdicts(result: SimilarityResult) -> str:
    """What the three means say; differences within their standard errors are none."""
    standard, robust, between = range(3)  # of the grids
    means = [str(grid.mean_with_error()) for grid in result.grids()]
    inside = {
        1: "The layers of the robust network resemble one another more than those of the standard "
        "one: it changes its view of the images less on the way from input (lower left) to output "
        "(upper right), and the dark areas, where early meets late, are paler",
        0: "In this run the layers resemble one another about as much in both networks",
        -1: "In this run the layers of the robust network resemble one another less than those of "
        "the standard one",
    }[_compared(result, robust, standard)]
    across = {
        1: "In this run the layers of one network resemble those of the other more than they do "
        "one another",
        0: "The two networks resemble one another about as much as the standard one does itself",
        -1: "The two networks resemble one another less than the standard one does itself, "
        "although images, architecture and first weights were the same: they found different "
        "solutions",
    }[_compared(result, between, standard)]
    return (
        f"{inside}: mean similarity of different layers {means[robust]} in the robust network, "
        f"{means[standard]} in the standard one. {across} ({means[between]})."
    )


def _compared(result: SimilarityResult, a: int, b: int) -> int:
    """1, 0 or -1: the mean of grid ``a`` is above, within the error of, or below that of ``b``."""

    def difference(of: SimilarityResult) -> float:
        grids = of.grids()
        return grids[a].mean_off_diagonal() - grids[b].mean_off_diagonal()

    # Not above, rather than below: without a standard error (NaN) nothing is a finding.
    if not abs(difference(result)) > NOTEWORTHY * result.standard_error_of(difference):
        return 0
    return 1 if difference(result) > 0 else -1


def _accuracy_rows(accuracy: dict[str, Accuracy]) -> list[dict[str, str]]:
    return [
        {
            "network": name,
            "as they are": _percent(figures.clean, figures.interval()),
            "under attack": _percent(figures.robust or 0.0, figures.interval(robust=True)),
        }
        for name, figures in accuracy.items()
    ]


def _percent(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value:.1%} (95 % interval {low:.1%} to {high:.1%})"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
