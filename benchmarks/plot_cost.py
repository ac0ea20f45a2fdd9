"""Draws time against the number of layers from results/<machine>/measures.json.

python benchmarks/plot_cost.py results/<machine>/measures.json cost.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def main(source: str, target: str) -> None:
    held = json.loads(Path(source).read_text())
    cost = [row for row in held["rows"] if row["case"].startswith("cost of")]
    if any(row.get("machine") != cost[0].get("machine") for row in cost):
        raise SystemExit(f"{source}: its costs are of several machines or versions, no one curve")
    layers = [row["layers"] for row in cost]
    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    ax = figure.subplots()
    ax.plot(layers, [1e3 * row["median_s"] for row in cost], "o-", label="grid of all pairs")
    ax.plot(
        layers,
        [1e3 * row["per_layer"] * row["layers"] for row in cost],
        "s--",
        label="factorisations",
    )
    alone = 1e3 * cost[0]["median_s"]
    ax.plot(
        layers,
        [alone * n * (n - 1) / 2 for n in layers],
        ":",
        color="grey",
        label="pairs one by one, as many tools do",
    )
    ax.set_xlabel("layers (2000 x 128)")
    ax.set_ylabel("milliseconds")
    ax.set_yscale("log")
    ax.legend()
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main(*sys.argv[1:])
