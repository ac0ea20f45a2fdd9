"""What the constants of csrc/cuda/gram/gram_plan.h ought to be, from the rows of gram_paths.py.

    python benchmarks/kernels/plan_constants.py benchmarks/results/<gpu>/gram_paths.json

For each constant "samples from which A is taken instead of B": the n that costs the least time over
all shapes and precisions that were measured, each counted by its share of the faster way. Two are
of no constant yet: from how many samples on a path that only the kernel study has would win, and
is worth a place in the operator. Then the shapes where the plan's choice took longer than another
path.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]

# Of the plan and of the study; matmul is for comparison.
WAYS = ("single", "bulk", "warpgroups", "tiles64", "tiles128", "vendor")
SLOWER = 1.03  # what is not noise


class Threshold(NamedTuple):
    """Samples from which one of `large` is taken instead of one of `small`."""

    name: str
    small: tuple[str, ...]
    large: tuple[str, ...]
    precisions: tuple[str, ...]


THRESHOLDS = (
    Threshold("bulk copies", ("single",), ("bulk",), ("tf32", "bfloat16")),
    Threshold("warpgroups", ("single", "bulk"), ("warpgroups",), ("bfloat16",)),
    Threshold("kLargeTileSamples", ("tiles64",), ("tiles128",), ("float32", "tf32", "bfloat16")),
    Threshold("kVendorSamples", ("tiles64", "tiles128"), ("vendor",), ("bfloat16",)),
)


def problems(rows: Iterable[Row]) -> dict[tuple[int, str, str], dict[str, Row]]:
    """Rows by path, for each (n, dtype, precision)."""
    found: dict[tuple[int, str, str], dict[str, Row]] = {}
    for row in rows:
        if "ms" in row and row["right"]:
            key = row["n"], row["dtype"], row["precision"]
            found.setdefault(key, {})[row["path"]] = row
    return found


def fastest(paths: dict[str, Row], names: Sequence[str]) -> float:
    """Milliseconds of the fastest of the named paths; infinite if none was measured."""
    return min((paths[name]["ms"] for name in names if name in paths), default=math.inf)


def best(threshold: Threshold, rows: Iterable[Row]) -> float | None:
    """The number of samples that costs least; infinite: never; None: nothing was measured."""
    times = [
        (n, fastest(paths, threshold.small), fastest(paths, threshold.large))
        for (n, _, precision), paths in problems(rows).items()
        if precision in threshold.precisions
    ]
    times = [(n, small, large) for n, small, large in times if max(small, large) < math.inf]
    if not times:
        return None

    def cost(start: float) -> float:
        return sum(
            (large if n >= start else small) / min(small, large) for n, small, large in times
        )

    # The largest of equals: the simpler way where the other one wins nothing.
    return min(sorted({n for n, _, _ in times} | {math.inf}, reverse=True), key=cost)


def report(rows: Sequence[Row]) -> list[str]:
    """Lines for people: constants, then choices that lose."""
    found = []
    for threshold in THRESHOLDS:
        value = best(threshold, rows)
        shown = {None: "not measured", math.inf: "never"}.get(value, str(value))
        found.append(f"{threshold.name:18} {shown}")
    for (n, dtype, precision), paths in problems(rows).items():
        chosen = next((row for row in paths.values() if row["chosen"]), None)
        if chosen is None:
            found.append(f"{n} {dtype} in {precision}: the plan's choice was not measured")
        elif chosen["ms"] > SLOWER * fastest(paths, WAYS):
            winner = min((path for path in paths if path in WAYS), key=lambda p: paths[p]["ms"])
            ratio = chosen["ms"] / paths[winner]["ms"]
            found.append(
                f"{n} {dtype} in {precision}: {chosen['path']} takes {ratio:.2f} times as long as "
                f"{winner}"
            )
    return found


if __name__ == "__main__":
    print("\n".join(report(json.loads(Path(sys.argv[1]).read_text())["rows"])))
