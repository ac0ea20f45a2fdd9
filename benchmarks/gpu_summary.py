"""Prints what `make gpu-bench` has written: each figure over its bound, and beside what was
predicted before anything ran (kernels/predictions.json); last, where the prediction was off.

python benchmarks/gpu_summary.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# A prediction is off where the figure is so many times as large or small.
OFF = 1.3

PARTS = ("operators", "kernel_study", "gram_paths", "end_to_end", "learning")


def prediction(row: dict[str, Any]) -> tuple[str, bool]:
    """What was predicted of a row as text, empty if nothing, and whether it was off."""
    if (expected := row.get("predicted_ms")) is not None:
        low, high = expected
        to = "" if low == high else f" to {high:g}"
        off = not low / OFF <= row["ms"] <= high * OFF
        return f"; {row['ms']:.3g} ms, predicted {low:g}{to} ms", off
    if (expected := row.get("predicted_of_copy")) is not None:
        off = not expected / OFF <= row["of_copy"] <= expected * OFF
        return f"; {row['of_copy']:.0%} of copy, predicted {expected:.0%}", off
    return "", False


def lines(folder: Path) -> list[str]:
    """A line for each row that has been timed; a part that is missing says so."""
    found, predicted, off = [], 0, []
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
                said, wrong = prediction(row)
                line = f"  {row['of_bound']:5.0%} of bound  {row['case']}{said}"
                found.append(line)
                predicted += said != ""
                off += [line] * wrong
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
    if predicted:
        found.append(f"predictions off by more than {OFF - 1:.0%}: {len(off)} of {predicted}")
        found += off
    return found


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]))))
