"""One HTML file that shows a comparison to someone who was not there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from repsim_fast._core.files import replacing
from repsim_fast.comparison.grid import Grid, is_distance, measure_title
from repsim_fast.comparison.overview import MODELS_OF_A_SHEET, means_along_depth
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.report.explorer import explorer_data
from repsim_fast.report.library import plotly_js, script_hash
from repsim_fast.report.template import page

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_report"]

Table: TypeAlias = "pd.DataFrame | Sequence[Mapping[str, Any]]"

_ESTIMATORS = {
    "unbiased": "unbiased HSIC, so that unrelated layers scatter around 0, also slightly below it",
    "biased": "biased HSIC, which is above 0 also for unrelated layers, the more so the fewer the "
    "samples",
}


def write_report(
    path: str | os.PathLike[str],
    results: SimilarityResult | Mapping[str, SimilarityResult],
    *,
    title: str = "How similar are these networks, layer by layer?",
    introduction: str = "",
    tables: Mapping[str, Table] | None = None,
) -> Path:
    """Write a page to explore comparisons with, which needs no network and no other file.

    Heat maps of any two models: a hover says layers, value and interval, a drag zooms, switches
    choose result (hence measure), models, values or their errors or values minus chance, and the
    colour scale, a filter the layers. Beside them profiles along depth and by distance, with more
    than two models an overview of them; below, key figures, what was warned of, settings, versions
    and timing. It goes by keyboard, by screen reader and on a phone; light or dark follows the
    reader's system. plotly.js, which the page holds, is 2.0 MB of it.

    Args:
        path: The HTML file to write.
        results: One result, or several under headings, such as those of several measures.
        title: Heading of the page.
        introduction: What was compared and why, in plain text; blank lines part paragraphs.
        tables: Further tables by heading, such as accuracies, shown before the results: data
            frames or sequences of rows {column: value}.

    Returns:
        The path.

    Raises:
        ImportError: plotly or jinja2 is missing.
        ValueError: There is no result.
        OSError: The place cannot be written to.

    Example:
        >>> from repsim_fast.report import write_report
        >>> import torch
        >>> from repsim_fast import compare
        >>> result = compare(torch.nn.Linear(5, 3), torch.nn.Linear(5, 3), torch.randn(64, 5))
        >>> accuracies = [{"model": "standard", "accuracy": 0.97}]
        >>> write_report("out/report.html", result, tables={"Accuracy": accuracies}).name
        'report.html'
    """
    named = {"": results} if isinstance(results, SimilarityResult) else dict(results)
    if not named:
        raise ValueError("results must be at least one, got none")
    library = plotly_js()
    text = page(
        "page.html.jinja",
        title=title,
        introduction=[text for text in introduction.split("\n\n") if text],
        tables={heading: _rows(rows) for heading, rows in (tables or {}).items()},
        sections=[_section(heading, result) for heading, result in named.items()],
        written=f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        version=next(iter(named.values())).versions.get("repsim_fast", ""),
        library=library.packed,
        scripts=lambda script: f"{library.hash} {script_hash(script.encode())}",
        **explorer_data(named),
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return Path(path)


def _rows(table: Table) -> list[Mapping[str, Any]]:
    if isinstance(table, Sequence):
        return list(table)
    named = table.reset_index() if table.index.name else table
    return [{str(k): _plain(v) for k, v in row.items()} for row in named.to_dict("records")]


def _plain(value: Any) -> Any:
    """A numpy number as a Python one."""
    return value.item() if isinstance(value, np.generic) else value


def _section(heading: str, result: SimilarityResult) -> dict[str, Any]:
    """What the page says of a result beside its maps."""
    grids = result.grids()
    few = len(result.models) <= MODELS_OF_A_SHEET
    about = [text for text in result.about_values() if not text.startswith("no value")]
    seconds = {name: f"{value:.2f} s" for name, value in result.seconds.items()}
    name = measure_title(grids)
    estimator = f"{name}, {_ESTIMATORS.get(result.estimator, result.estimator)}"
    return {
        "heading": heading or "Key figures",
        "basis": _basis(result),
        "estimator": f"{_sentence(estimator)}.",
        "cards": [_card(grid) for grid in grids] if few else [],
        "notes": [*(f"{_sentence(text)}." for text in about), *_undefined_layers(result)],
        "how_to_read": _how_to_read(result),
        "matrix": [] if few else _models_by_models(result),
        "summary": result.summary(),
        "ranges": [_range(grid) for grid in grids],
        "settings": result.settings,
        "versions": {**result.versions, **seconds},
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _basis(result: SimilarityResult) -> str:
    data = result.settings.get("data")
    return (
        f"Based on {result.n_samples:,} samples in {result.n_batches} batches"
        + (f". Data: {data}" if data else "")
        + "."
    )


def _models_by_models(result: SimilarityResult) -> list[dict[str, Any]]:
    """Means over layers at the same relative depth, a row and a column for each model."""
    corner = "mean at the same relative depth"
    return [
        {corner: model} | dict(zip(result.models, map(float, row), strict=True))
        for model, row in zip(result.models, means_along_depth(result), strict=True)
    ]


def _undefined_layers(result: SimilarityResult) -> list[str]:
    if not result.undefined_layers:
        return []
    reasons = {
        (m, name): why for m, layers in result.undefined.items() for name, why in layers.items()
    }
    layers = "; ".join(
        f"{layer} of {model}" + (f" ({reasons[model, layer]})" if (model, layer) in reasons else "")
        for model, layer in result.undefined_layers
    )
    return [f"Similarity is undefined for these layers (grey): {layers}."]


def _card(grid: Grid) -> tuple[str, str, str]:
    """Of every square grid the mean off-diagonal, so that cards can be compared."""
    mean = grid.figures()[-1]
    error = "" if mean.standard_error != mean.standard_error else f" ± {mean.standard_error:.2g}"
    chance = f", by chance {mean.chance:.2f}" if abs(mean.chance) >= 0.005 else ""
    return grid.title, f"{mean.value:.2f}", f"{mean.name}{error}{chance}"


def _range(grid: Grid) -> dict[str, Any]:
    """Of single cells, those of layers with themselves left out."""
    off = grid.value[~np.eye(len(grid.rows), dtype=bool)] if grid.within else grid.value.ravel()
    error = grid.standard_error[np.isfinite(grid.standard_error) & (grid.standard_error > 0)]
    return {
        "single cells": grid.title,
        "lowest": float(np.nanmin(off)) if np.isfinite(off).any() else None,
        "highest": float(np.nanmax(off)) if np.isfinite(off).any() else None,
        "median standard error of a cell": float(np.median(error)) if error.size else None,
    }


def _how_to_read(result: SimilarityResult) -> list[str]:
    distance = is_distance(result.measure)
    alike, itself = ("dark", 0) if distance else ("bright", 1)
    known = np.zeros(1) if result.chance is None else result.chance[np.isfinite(result.chance)]
    level = float(known.mean()) if known.size else 0.0
    sentences = [
        "Each cell compares two layers: do they find the same samples alike? "
        + (
            "0 (dark) means that they do, the brighter the less."
            if distance
            else "1 (bright) means that they do"
            + (
                ", 0 (dark) that they are unrelated."
                if level < 0.05
                else f"; unrelated layers are not at 0 but at their chance level, {level:.2f} on "
                "average."
            )
        ),
        "Layers run from the input, lower left, to the output, upper right.",
        f"Within a model the diagonal compares each layer with itself and is {itself}; {alike} "
        "squares along it are stretches of layers that do much the same.",
    ]
    if len(result.models) > 1:
        sentences.append(
            f"Between two models a {alike} diagonal means that they build up the same "
            "representation at the same depth."
        )
    return sentences
