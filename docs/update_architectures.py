"""Puts the tables of the architectures' results file into docs/architectures.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

START, END = "<!-- architectures: docs/update_architectures.py -->\n", "<!-- end -->"
PAGE = Path(__file__).parent / "architectures.md"
FOLDER = "intel-r-xeon-r-processor-family-6-model-207-1-threads"
RESULTS = PAGE.parents[1] / "benchmarks" / "results" / FOLDER / "architectures.json"
HEAD = (
    "| architecture | works | layers | without a value | largest error | times the forward passes |"
)
EQUAL = 1e-6
"""Largest error of a value in float32 that is called equal to float64."""


def updated(page: str) -> str:
    """The page with the tables between its markers."""
    held = json.loads(RESULTS.read_text())
    before, rest = page.split(START)
    return before + START + tables(held) + END + rest.split(END)[1]


def tables(held: dict[str, Any]) -> str:
    """A summary, and a table of each group."""
    rows = held["rows"]
    ran = [row for row in rows if "max_error" in row]
    equal = [row for row in ran if row["max_error"] <= EQUAL]
    places = [held["machine"], *(row["machine"] for row in rows if "machine" in row)]
    commits = ", ".join(sorted({place["commit"] for place in places}))
    machine = held["machine"]
    packages = ("torch", "torchvision", "timm", "transformers", "diffusers", "torch_geometric")
    named = [f"{p} {machine[p]}" for p in (*packages, "peft", "accelerate") if p in machine]
    lines = [
        f"{len(rows)} architectures: {len(ran)} work, {len(equal)} of them with every value equal "
        f"to float64 (within {EQUAL:.0e}), {sum('failed' in row for row in rows)} fail, "
        f"{sum('not_run' in row for row in rows)} were not run. With {', '.join(named)}; "
        f"{machine['processor']}, commit {commits}.",
        "",
    ]
    for group in dict.fromkeys(row["group"] for row in rows):
        lines += [f"## {group}", "", HEAD, "|---|---|---|---|---|---|"]
        lines += [line(row) for row in rows if row["group"] == group]
        lines += [""]
    return "\n".join(lines)


def line(row: dict[str, Any]) -> str:
    """A line of a table."""
    why = row.get("not_run") or row.get("failed")
    if why:
        return f"| {row['name']} | no: {why.replace('|', '/')} | | | | |"
    ratio = row.get("ratio_to_forwards")
    share = f"{row['undefined'] / row['cells']:.1%}" if row["undefined"] else ""
    return (
        f"| {row['name']} | yes | {row['layers']} | {share} | {row['max_error']:.1e} | "
        f"{'' if ratio is None else f'{ratio:.2f}'} |"
    )


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
