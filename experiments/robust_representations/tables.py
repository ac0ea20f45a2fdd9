"""Tables of this experiment for its README."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.lab.readme import Block, findings

_INDICES = (
    "clean accuracy", "robust accuracy", "mean off-diagonal", "stage1-stage3", "long range",
    "block index", "block index, making stage", "block index, residual stream", "stage contrast",
)  # fmt: skip


def structure(folders: list[Path]) -> str:
    """Standard against robust networks, each a mean over seeds."""
    q1, tests = findings(folders[0], "Q1"), {}
    if (folders[0] / "Q9.json").exists():
        tests = findings(folders[0], "Q9")["block structure"]
    seeds = q1["seeds"]
    lines = [
        f"| | standard ({seeds} seeds) | robust ({seeds} seeds) | p over seeds |",
        "|---|---|---|---|",
    ]
    for index in [name for name in _INDICES if name in q1["standard"]]:
        p = f"{tests[index]['p over seeds']:.2g}" if index in tests else ""
        lines.append(f"| {index} | {_text(q1['standard'][index])} | {_text(q1['robust'][index])} | "
                     f"{p} |")  # fmt: skip
    same = q1["same layer"]
    lines.append(
        f"| same layer, seed to seed | {_text(same.get('standard-standard'))} | "
        f"{_text(same.get('robust-robust'))} | |"
    )
    lines.append(f"| same layer, standard to robust | {_text(same['standard-robust'])} | | |")
    return "\n".join(lines) + "\n"


def _text(estimate: dict[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    error = "" if estimate["se"] is None else f" ± {estimate['se']:.3f}"
    return f"{estimate['value']:.3f}{error}"


BLOCKS: Mapping[str, Block] = {"structure": structure}
