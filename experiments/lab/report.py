"""Writes what a question found: JSON, CSV and pictures."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from repsim_fast import Grid
from repsim_fast._core.files import replacing
from repsim_fast.analysis.estimates import Estimate

from . import pictures
from .files import write_json


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
        with replacing(self._path(name, "csv")) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(flat)

    def picture(self, name: str, figure: Figure) -> None:
        """PNG."""
        with replacing(self._path(name, "png")) as part:
            figure.savefig(part, dpi=75)  # its layout, constrained, leaves no room

    def heatmaps(self, name: str, grids: Sequence[Grid], title: str, columns: int = 3) -> None:
        """Picture of grids, see ``pictures.heatmaps``."""
        self.picture(name, pictures.heatmaps(grids, title, columns))

    def lines(self, name: str, curves: Mapping[str, Sequence[Estimate]], **options: Any) -> None:
        """Picture of curves, see ``pictures.lines``."""
        self.picture(name, pictures.lines(curves, **options))

    def matrix(
        self, name: str, names: Sequence[str], values: Sequence[Sequence[Estimate]], title: str,
        label: str = "mean CKA",
    ) -> None:  # fmt: skip
        """A small labelled matrix of similarities, as a picture and as a table."""
        self.table(
            name,
            [
                {"row": a, "column": b, label: value}
                for a, row in zip(names, values, strict=True)
                for b, value in zip(names, row, strict=True)
            ],
        )
        self.picture(name, pictures.matrix(names, values, title=title, label=label))

    def findings(self, found: Mapping[str, Any]) -> None:
        """What claims are judged by."""
        write_json(self.folder / f"{self.question}.json", {"findings": found, "files": self.files})

    def _path(self, name: str, suffix: str) -> Path:
        file = f"{self.question}_{name}.{suffix}"
        self.files.append(file)
        return self.folder / file


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Estimate):
            flat[key] = _number(value.value)
            flat[f"{key} se"] = _number(value.standard_error)
        else:
            flat[key] = _number(value) if isinstance(value, float) else value
    return flat


def _number(value: float) -> str:
    """Four digits; nothing where a number is not known."""
    return "" if np.isnan(value) else f"{value:.4f}"
