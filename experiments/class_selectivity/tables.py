"""Tables of this experiment for its README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.lab.readme import Block, findings

# Question and figure, one column each.
_COLUMNS = {
    "selectivity": ("Q1", "selectivity"),
    "accuracy": ("Q1", "clean accuracy"),
    "corrupted": ("Q2", "corrupted accuracy"),
    "PGD": ("Q3", "pgd"),
    "early components": ("Q4", "early clean: components 95"),
    "gradients across samples": ("Q5", "across samples"),
}


def alphas(folders: list[Path]) -> str:
    """One line an alpha, means over seeds."""
    found = {question: findings(folders[0], question) for question, _ in _COLUMNS.values()}
    lines = [f"| alpha | {' | '.join(_COLUMNS)} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for alpha in found["Q1"]["alphas"]:
        cells = [_text(found[q]["alphas"][alpha][figure]) for q, figure in _COLUMNS.values()]
        lines.append(f"| {alpha} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _text(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return ""
    error = "" if estimate["se"] is None else f" ± {estimate['se']:.3f}"
    return f"{estimate['value']:.3f}{error}"


BLOCKS: Mapping[str, Block] = {"alphas": alphas}
