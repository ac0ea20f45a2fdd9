"""Writes results: JSON, CSV and pictures, and where and when they were made."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from repsim_fast.plotting import plot_grids
from repsim_fast.results import Grid, versions

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
        """Grids side by side on one scale."""
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
        self, name: str, names: Sequence[str], values: Any, title: str, label: str = "mean CKA"
    ) -> None:
        """A small labelled matrix with its numbers."""
        figure = Figure(figsize=(1.6 + 0.62 * len(names), 1.2 + 0.55 * len(names)),
                        layout="constrained")  # fmt: skip
        ax = figure.subplots()
        shown = ax.imshow(values, vmin=0, vmax=1, cmap="magma")
        for i, row in enumerate(np.asarray(values)):
            for j, value in enumerate(row):
                colour = "black" if value > 0.6 else "white"
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set_title(title, fontsize=10)
        figure.colorbar(shown, label=label)
        figure.savefig(self._path(name, "png"), **_PNG)

    def findings(self, found: Mapping[str, Any], seconds: float) -> None:
        """What claims are judged by."""
        whole = {"findings": plain(found), "files": self.files, "seconds": seconds}
        path = self.folder / f"{self.question}.json"
        write_json(path, whole)

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


def provenance(preset: Any) -> dict[str, Any]:
    """Machine, commit, time, versions and settings."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": versions(),
        "preset": dataclasses.asdict(preset),
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Estimate):
            flat[key] = f"{value.value:.4f}"
            flat[f"{key} se"] = f"{value.se:.4f}"
        else:
            flat[key] = f"{value:.4f}" if isinstance(value, float) else value
    return flat


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((s.partition(":")[2].strip() for s in lines if s.startswith("model name")), "")


def _commit() -> str:
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!results")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes here" if changed else "")
