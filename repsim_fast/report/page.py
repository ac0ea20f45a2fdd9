"""One HTML file that shows a comparison to someone who was not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from repsim_fast._core.files import replacing
from repsim_fast.comparison.grid import (
    Grid,
    is_distance,
    measure_title,
    plot_by_distance,
    plot_grids,
)
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.plotting import to_png
from repsim_fast.report import html as _html

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
    standard_error: bool = False,
    minus_chance: bool = False,
) -> Path:
    """Write a report that needs no network, no script and no other file.

    It shows the key figures, what was warned of, heat maps of all grids on one scale with an
    explanation, similarity by distance between layers, the best match of each layer, and under
    folds the settings, the versions and the timing. Light or dark follows the reader's system.

    Args:
        path: The HTML file to write.
        results: One result, or several under headings.
        title: Heading of the page.
        introduction: What was compared and why, in plain text; blank lines part paragraphs.
        tables: Further tables by heading, such as accuracies, shown before the results: data
            frames or sequences of rows {column: value}.
        standard_error: Show heat maps of the standard errors as well.
        minus_chance: Show heat maps of the values minus their chance levels as well.

    Returns:
        The path.

    Raises:
        ValueError: There is no result, or none of its chance levels for ``minus_chance``.
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
    now = datetime.now().astimezone()
    body = [f"<header><h1>{_html.escape(title)}</h1>"]
    body += [_html.paragraph(text, kind="lead") for text in introduction.split("\n\n") if text]
    body.append("</header>")
    for heading, rows in (tables or {}).items():
        body += [f"<h2>{_html.escape(heading)}</h2>", _html.table(_rows(rows))]
    for heading, result in named.items():
        body += _section(
            heading or "Similarity of layers",
            result,
            standard_error=standard_error,
            minus_chance=minus_chance,
        )
    body.append(
        f"<footer>Written {now:%Y-%m-%d %H:%M} by repsim_fast "
        f"{_html.escape(str(next(iter(named.values())).versions.get('repsim_fast', '')))}.</footer>"
    )
    text = _html.page(title, body)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _basis(result: SimilarityResult) -> str:
    data = result.settings.get("data")
    return (
        f"Based on {result.n_samples:,} samples in {result.n_batches} batches"
        + (f". Data: {data}" if data else "")
        + "."
    )


def _rows(table: Table) -> list[Mapping[str, Any]]:
    if isinstance(table, Sequence):
        return list(table)
    named = table.reset_index() if table.index.name else table
    return [{str(k): _plain(v) for k, v in row.items()} for row in named.to_dict("records")]


def _plain(value: Any) -> Any:
    """A numpy number as a Python one."""
    return value.item() if isinstance(value, np.generic) else value


def _section(
    heading: str, result: SimilarityResult, *, standard_error: bool, minus_chance: bool
) -> list[str]:
    grids = result.grids()
    matches = [grid for grid in grids if not grid.within]
    seconds = {name: f"{value:.2f} s" for name, value in result.seconds.items()}
    about = [text for text in result.about_values() if not text.startswith("no value")]
    return [
        f"<h2>{_html.escape(heading)}</h2>",
        _html.paragraph(_basis(result), kind="soft"),
        _html.cards(map(_card, grids)),
        *(_html.paragraph(f"{text[0].upper()}{text[1:]}.", kind="note") for text in about),
        _heat_maps(grids, result.estimator, standard_error=standard_error),
        _heat_maps(grids, result.estimator, minus_chance=True) if minus_chance else "",
        _how_to_read(result),
        _undefined_layers(result),
        _by_distance([grid for grid in grids if grid.is_square]),
        "<h3>In figures</h3>",
        _html.table(result.summary()),
        _html.table([_range(grid) for grid in grids]),
        *(_html.details(f"Best match of each layer: {g.title}", _matches(g)) for g in matches),
        _html.details("Settings", _html.pairs(result.settings)),
        _html.details("Versions and timing", _html.pairs({**result.versions, **seconds})),
    ]


def _heat_maps(
    grids: Sequence[Grid],
    estimator: str,
    *,
    standard_error: bool = False,
    minus_chance: bool = False,
) -> str:
    name = measure_title(grids)
    shown = [grid.minus_chance() for grid in grids] if minus_chance else grids
    what = f"{name}, {_ESTIMATORS.get(estimator, estimator)}"
    if minus_chance:
        what = f"{name} minus its chance level, so that unrelated layers are 0"
    figures = "; ".join(f"{grid.title} {grid.in_words(digits=2)}" for grid in shown)
    return _pictures(
        partial(
            plot_grids,
            grids,
            standard_error=standard_error,
            minus_chance=minus_chance,
            columns=_columns_that_fit(grids),
        ),
        alt=f"Heat maps of {name}{' minus chance level' * minus_chance} between layers: {figures}",
        caption=f"{what[0].upper()}{what[1:]}.",
    )


def _by_distance(grids: Sequence[Grid]) -> str:
    if not grids:
        return ""
    return "<h3>Does similarity fall with distance?</h3>" + _pictures(
        partial(plot_by_distance, grids),
        alt=f"Mean {measure_title(grids)} against the number of layers between two layers",
        caption="Mean over all pairs of layers that are so many positions apart. A steep line: "
        "layers do different things. A flat one: they resemble one another far across the "
        "network. Bands are one standard error either way.",
    )


def _undefined_layers(result: SimilarityResult) -> str:
    if not result.undefined_layers:
        return ""
    reasons = {
        (m, name): why for m, layers in result.undefined.items() for name, why in layers.items()
    }
    layers = "; ".join(
        f"{layer} of {model}" + (f" ({reasons[model, layer]})" if (model, layer) in reasons else "")
        for model, layer in result.undefined_layers
    )
    return _html.paragraph(
        f"Similarity is undefined for these layers (grey): {layers}.", kind="note"
    )


def _columns_that_fit(grids: Sequence[Grid]) -> int:
    """Heat maps side by side whose labels can still be read at the width of the page."""
    most = max(max(grid.value.shape) for grid in grids)
    return 3 if most <= 20 else 2 if most <= 40 else 1


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


def _matches(grid: Grid) -> str:
    known = [i for i in range(len(grid.rows)) if np.isfinite(grid.value[i]).any()]
    best = [(i, int(np.nanargmax(grid.value[i]))) for i in known]
    return _html.table(
        [
            {
                grid.row_model: grid.rows[i],
                f"most similar in {grid.column_model}": grid.columns[j],
                "similarity": float(grid.value[i, j]),
                "standard error": float(grid.standard_error[i, j]),
            }
            for i, j in best
        ]
    )


def _how_to_read(result: SimilarityResult) -> str:
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
    items = "".join(f"<li>{_html.escape(sentence)}</li>" for sentence in sentences)
    return f"<h3>How to read this</h3><ul>{items}</ul>"


def _pictures(plot: Callable[..., Figure], *, alt: str, caption: str) -> str:
    light, dark = (to_png(plot(theme=theme), dpi=120) for theme in ("light", "dark"))
    return _html.picture(light, dark, alt=alt, caption=caption)
