"""Tables of this experiment for its README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.lab.readme import Block, findings


def phase(folders: list[Path]) -> str:
    """Clean / robust accuracy of every cell; collapsed ones are bold."""
    radii = findings(folders[0], "Q1")["radii"]
    betas = sorted({float(beta) for own in radii.values() for beta in own["clean"]})
    head = " | ".join(f"beta {beta:g}" for beta in betas)
    lines = [f"| eps | {head} |", "|---|" + "---|" * len(betas)]
    for eps, own in radii.items():
        cells = []
        for beta in (f"{b:g}" for b in betas):
            if beta not in own["clean"]:
                cells.append("")
                continue
            text = " / ".join(f"{own[kind][beta]['value']:.2f}" for kind in ("clean", "robust"))
            cells.append(f"**{text}**" if own["collapsed"][beta] >= 0.5 else text)
        lines.append(f"| {eps} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


BLOCKS: Mapping[str, Block] = {"phase": phase}
