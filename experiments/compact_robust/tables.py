"""Tables of this experiment for its README."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from experiments.lab.readme import Block


def accuracies(folders: list[Path]) -> str:
    """One line a network, kind of scores and sparsity, means over seeds."""
    with (folders[0] / "Q1_accuracies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = ("benign", "era", "vra")
    lines = [f"| network | scores | sparsity | {' | '.join(shown)} |", "|---" * 6 + "|"]
    for row in rows:
        cells = [_text(row[name], row[f"{name} se"]) for name in shown]
        of = (row["network"], row["scores"], f"{float(row['sparsity']):g}")
        lines.append(f"| {' | '.join((*of, *cells))} |")
    return "\n".join(lines) + "\n"


def _text(value: str, error: str) -> str:
    return f"{float(value):.3f}" + (f" ± {float(error):.3f}" if error else "")


BLOCKS: Mapping[str, Block] = {"accuracies": accuracies}
