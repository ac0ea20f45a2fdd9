"""Prints what `make gpu-bench` has written: each figure over its bound.

python benchmarks/gpu_summary.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PARTS = ("operators", "kernel_study", "gram_paths", "end_to_end", "learning")


def lines(folder: Path) -> list[str]:
    """A line for each row that has been timed; a part that is missing says so."""
    found = []
    for part in PARTS:
        path = folder / f"{part}.json"
        if not path.exists():
            found.append(f"{part}: not measured yet")
            continue
        content = json.loads(path.read_text())
        where = content["machine"]
        device = where.get("gpu", where["processor"])
        found.append(f"{part}: {device}, torch {where['torch']}, {where['commit']}")
        for row in content["rows"]:
            if "of_bound" in row:
                found.append(f"  {row['of_bound']:5.0%} of bound  {row['case']}")
            elif "ratio" in row:
                bound = f" (bound {row['bound_ratio']:.2f})" if "bound_ratio" in row else ""
                found.append(f"  {row['ratio']:5.2f} times{bound}  {row['case']}")
            elif "reached" in row:
                verdict = {True: "reached", False: "NOT reached", None: "not verified"}[
                    row["reached"]
                ]
                ours = f"{row['clean']:.1f}/{row['robust']:.1f}"
                theirs = f"{row['published_clean']:.1f}/{row['published_robust']:.1f}"
                found.append(f"  {ours}, published {theirs}: {verdict}  {row['case']}")
    return found


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]))))
