"""Writes results: JSON, CSV and pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from repsim_fast.comparison.grid import Grid, plot_grids

from .indices import Estimate

_PNG = {"dpi": 75, "bbox_inches": "tight"}


class Report:
    """Files of one question in the results folder.

    Args:
        folder: ``results/<preset>``.
        question: Name that files begin with.
    """

    def __init__(self, folder: Path, question: str) -> None:
        self.folder = folder
        self.question = question
        self.files: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """CSV; an estimate takes two columns, the second its standard error."""
        flat = [_flat(row) for row in rows]
        columns = list(dict.fromkeys(key for row in flat for key in row))
        with self._path(name, "csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(flat)

    def heatmaps(self, name: str, grids: Sequence[Grid], title: str, columns: int = 3) -> None:
        """Grids side by side on one scale; the title has the largest standard error of a cell."""
        error = max(float(np.nanmax(grid.standard_error)) for grid in grids)
        title = f"{title} (standard errors up to {error:.2g})"
        figure = plot_grids(grids, columns=columns, title=title)
        figure.savefig(self._path(name, "png"), **_PNG)

    def lines(
        self,
        name: str,
        curves: Mapping[str, Sequence[Estimate]],
        *,
        x: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        xlabel: str,
        ylabel: str,
        title: str,
        borders: Iterable[tuple[float, str]] = (),
    ) -> None:
        """Curves with one standard error either way; ``borders`` are marked positions."""
        figure = Figure(figsize=(7.5, 4), layout="constrained")
        ax = figure.subplots()
        for label, curve in curves.items():
            at = x[label] if isinstance(x, Mapping) else x
            at = np.arange(len(curve)) if at is None else np.asarray(at)
            value = np.array([e.value for e in curve])
            se = np.nan_to_num([e.se for e in curve])
            (line,) = ax.plot(at, value, label=label, linewidth=1.6, marker=".", markersize=4)
            ax.fill_between(at, value - se, value + se, color=line.get_color(), alpha=0.2, lw=0)
        for position, text in borders:
            ax.axvline(position, color="0.7", linewidth=0.8)
            ax.text(position, ax.get_ylim()[1], f" {text}", fontsize=7, va="top", color="0.4")
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        ax.grid(alpha=0.25)
        ax.legend(fontsize=7)
        figure.savefig(self._path(name, "png"), **_PNG)

    def matrix(
        self, name: str, names: Sequence[str], values: Sequence[Sequence[Estimate]], title: str
    ) -> None:
        """A small labelled matrix of mean CKA with its numbers, as a picture and as a table."""
        self.table(
            name,
            [
                {"row": a, "column": b, "mean CKA": value}
                for a, row in zip(names, values, strict=True)
                for b, value in zip(names, row, strict=True)
            ],
        )
        figure = Figure(figsize=(1.8 + 0.68 * len(names), 1.4 + 0.6 * len(names)),
                        layout="constrained")  # fmt: skip
        ax = figure.subplots()
        shown = ax.imshow([[e.value for e in row] for row in values], vmin=0, vmax=1, cmap="magma")
        for i, row in enumerate(values):
            for j, e in enumerate(row):
                text = f"{e.value:.2f}" + (f"\n±{e.se:.3f}" if i != j else "")
                colour = "black" if e.value > 0.6 else "white"
                ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=6)
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set_title(title, fontsize=10)
        figure.colorbar(shown, label="mean CKA ± standard error")
        figure.savefig(self._path(name, "png"), **_PNG)

    def findings(self, found: Mapping[str, Any]) -> None:
        """What claims are judged by."""
        write_json(self.folder / f"{self.question}.json", {"findings": found, "files": self.files})

    def _path(self, name: str, suffix: str) -> Path:
        file = f"{self.question}_{name}.{suffix}"
        self.files.append(file)
        return self.folder / file


def plain(thing: Any) -> Any:
    """As JSON holds it; estimates as {"value", "se"}, numbers of six digits, NaN as null."""
    if isinstance(thing, Estimate):
        return {"value": plain(thing.value), "se": plain(thing.se)}
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, np.ndarray)):
        return [plain(value) for value in thing]
    if isinstance(thing, (float, np.floating)):
        return float(f"{thing:.6g}") if np.isfinite(thing) else None
    if isinstance(thing, np.integer):
        return int(thing)
    return thing


def write_json(path: Path, thing: Any) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(plain(thing), indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Estimate):
            flat[key] = _number(value.value)
            flat[f"{key} se"] = _number(value.se)
        else:
            flat[key] = _number(value) if isinstance(value, float) else value
    return flat


def _number(value: float) -> str:
    """Four digits; nothing where a number is not known."""
    return "" if np.isnan(value) else f"{value:.4f}"
