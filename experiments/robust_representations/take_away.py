"""Make a pair to take away: ``python -m experiments.robust_representations.take_away``.

Writes a standard and a robust network of a preset, once they are trained, as files that
``repsim_fast.models.load_pretrained`` opens.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from repsim_fast import models

from . import strongest
from .experiment import EXPERIMENT
from .presets import PRESETS
from .questions.seeds import recipes
from .robust_lab import RobustLab

WEIGHTS = Path(models.__file__).parent / "weights"


def write(lab: RobustLab, kind: str, seed: int, folder: Path) -> Path:
    """The network of a kind and a seed, with all that is known of it."""
    recipe = recipes(lab, seed)[kind]
    # As the file has them: rounded.
    network = lab.networks.load(recipe).half().float()
    threat = next(iter(lab.threats.values()))
    shares = lab.shares(network, threat.build(), *lab.images())
    about = {f"{name}_accuracy": round(value, 6) for name, value in shares.items()}
    under = strongest.accuracy(lab, recipe)
    if under is not None and lab.preset.strongest is not None:
        about["autoattack_accuracy"] = round(under.value, 6)
        about["autoattack_images"] = min(lab.preset.strongest.images, len(lab.test_data))
    path = folder / f"{lab.dataset.name}-{recipe.architecture}-{kind}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    models.save_pretrained(
        path,
        network,
        name=recipe.architecture,
        num_classes=len(lab.train_data.classes),
        in_channels=lab.train_data.images.shape[1],
        method=recipe.method,
        epochs=recipe.epochs,
        classes=list(lab.train_data.classes),
        **about,
        attack=f"{threat.attack} { ({**threat.common, **threat.evaluate}) }",
        evaluated_images=len(lab.test_data),
        recipe=dataclasses.asdict(recipe),
        commit=lab.networks.train(recipe).commit,
    )
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both kinds of a seed."""
    parser = argparse.ArgumentParser(prog="python -m experiments.robust_representations.take_away")
    parser.add_argument("--preset", choices=PRESETS, default="cpu-full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=EXPERIMENT.folder / "work")
    parser.add_argument("--cards", type=Path, help="as of the run, if it had them elsewhere")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the files")
    options = parser.parse_args(arguments)
    lab = RobustLab(
        PRESETS[options.preset],
        options.work / options.preset,
        cards=options.cards,
        progress=True,
    )
    for kind in ("standard", "robust"):
        path = write(lab, kind, options.seed, options.out)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
