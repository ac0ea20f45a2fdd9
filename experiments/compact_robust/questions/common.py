"""What several questions ask of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.lab.figures import Figures, mean_of
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate

from ..compact_lab import BENIGN, ERA, VRA, CompactLab, Way
from ..presets import Network
from ..recipes import Recipe

ACCURACIES = (BENIGN, ERA, VRA)


def networks(lab: CompactLab) -> list[Network]:
    """Those of questions 1 and 3; the usual one first."""
    return [lab.network, *lab.preset.others]


def label(network: Network) -> str:
    """In tables."""
    return f"{network.architecture}, {network.objective}"


def of_seeds(
    lab: CompactLab, network: Network, sparsity: float = 0.0, way: Way = "magnitude"
) -> list[Recipe]:
    """A network pruned in some way, one a seed; at sparsity 0 as it is pre-trained."""
    dense = [lab.dense(network, seed) for seed in lab.seeds(network)]
    return [lab.pruned(one, sparsity, way) for one in dense] if sparsity else dense


def measure(lab: CompactLab, recipe: Recipe) -> None:
    """What tables have of a network."""
    lab.accuracies(recipe)
    lab.compact(recipe)


def accuracies(lab: CompactLab, recipes: Sequence[Recipe]) -> list[Figures]:
    """Of each network."""
    return [lab.accuracies(recipe) for recipe in recipes]


def write(
    report: Report,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    measured: Sequence[Sequence[Figures]],
) -> None:
    """A table of means over seeds, and one of all networks; ``rows`` say what each line is of."""
    report.table(name, [{**r, **mean_of(own)} for r, own in zip(rows, measured, strict=True)])
    report.table(
        f"{name}_networks",
        [
            {**row, "network": number, **figures}
            for row, own in zip(rows, measured, strict=True)
            for number, figures in enumerate(own)
        ],
    )


def bars(
    report: Report, name: str, columns: Mapping[str, Mapping[str, Estimate]], title: str
) -> None:
    """Picture of the accuracies of a few kinds of networks."""
    report.lines(
        name,
        {figure: [own[figure] for own in columns.values()] for figure in ACCURACIES},
        x=list(columns), xlabel="", ylabel="accuracy", title=title,
    )  # fmt: skip
