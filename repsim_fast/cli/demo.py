"""`repsim-fast demo`: the main job in a minute, on images that need no download."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import Interrupted
from .options import Seed, parse_folder
from .tables import format_table


def demo(
    out: Annotated[
        Path, typer.Option(parser=parse_folder, metavar="DIR", help="Folder for the results.")
    ] = Path("out/demo"),
    seed: Seed = 0,
    epochs: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    limit: Annotated[int | None, typer.Option(min=40, hidden=True)] = None,
) -> None:
    """Train a standard and a robust network on handwritten digits and compare them.

    Takes about a minute on one core and needs no data, network or GPU: the digits (1,797 images of
    8 x 8 pixels) come with the package. Prints accuracies and similarities; heat maps and a
    report that explains them are in the folder.

    \b
    Example:
      repsim-fast demo --out out/demo
    """
    from repsim_fast.cli import demo_run as main_job

    stages = iter(range(1, 5))

    def say(line: str) -> None:
        typer.echo(f"[{next(stages)}/4] {line}")

    try:
        found = main_job.run_demo(
            out,
            epochs=epochs or main_job.EPOCHS,
            limit=limit,
            seed=seed,
            progress=sys.stderr.isatty(),
            say=say,
        )
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run it again to start over ({out})") from None
    typer.echo(f"\nAccuracy on unseen digits (attack: PGD, {main_job.TEST_STEPS} steps, "
               f"eps {main_job.EPS})\n")  # fmt: skip
    typer.echo(
        format_table(
            [
                {"network": name, "clean": figures.clean, "under attack": figures.robust}
                for name, figures in found.accuracy.items()
            ]
        )
    )
    typer.echo("\nSimilarity of different layers (mean off-diagonal CKA)\n")
    typer.echo(
        format_table(
            [
                {
                    "networks": row["comparison"],
                    "CKA": row["value"],
                    "standard error": row["standard error"],
                }
                for row in found.result.summary()
                if row["figure"] == "mean off-diagonal"
            ]
        )
    )
    typer.echo(f"\nDone in {found.seconds:.0f} s. Open {found.report} to see what this means.")
