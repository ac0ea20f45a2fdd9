"""What commands that compare say of a result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .tables import format_table

if TYPE_CHECKING:
    from repsim_fast.comparison.result import SimilarityResult


def show(result: SimilarityResult) -> None:
    """Print the key figures: of each pair of a few models, of more the range."""
    from repsim_fast.comparison.overview import MODELS_OF_A_SHEET, overview_in_words

    seconds = result.seconds["total"]
    typer.echo(f"\n{result.n_samples:,} samples in {seconds:.1f} s; {result.measure}:\n")
    few = len(result.models) <= MODELS_OF_A_SHEET
    typer.echo(format_table(result.summary()) if few else "\n".join(overview_in_words(result)))
    if not few:
        typer.echo("models.csv has each pair of models; of layers: repsim-fast report --tables DIR")
    about = [as_option(text) for text in (*result.about_values(), *_undefined(result))]
    typer.echo("".join(f"\n{text}" for text in about))


def say_where(page: Path, measures: Sequence[str], *, figures: bool = True) -> None:
    """Say where the page is, and what is beside it."""
    rest = f"{'heat maps (PNG), ' * figures}tables (CSV) and result"
    if len(measures) == 1:
        typer.echo(f"\nOpen {page}; beside it are {rest}.")
        return
    folders = ", ".join(str(page.parent / name) for name in measures)
    typer.echo(f"\nOpen {page}, which has a switch of measures; {rest} of each are in {folders}.")


FEW = "more samples than independent features"  # in errors of measures of few images
HELPS = (
    "what helps: more images (a larger --limit, --split train), fewer features of a layer "
    "(--maps pool), layers of few features (--layers), or --measure cka"
)


def _undefined(result: SimilarityResult) -> list[str]:
    """Why layers have no value, and which option helps."""
    reasons = {why: None for layers in result.undefined.values() for why in layers.values()}
    texts = [f"why there is no value: {reason}" for reason in list(reasons)[:3]]
    return [*texts, HELPS] if any(FEW in reason for reason in reasons) else texts


def as_option(text: str) -> str:
    """A text for Python in the words of the command line."""
    text = re.sub(r"\b(jackknife|permutations)=(\d+)", r"--\1 \2", text)
    text = text.replace("recordings= ", "--recordings DIR ")
    return text.replace("batch_size", "--batch-size")
