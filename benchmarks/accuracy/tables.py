"""Tables of docs/accuracy.md, each from a results file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

Row = dict[str, Any]


def results(name: str) -> list[Row]:
    """Rows of a results file."""
    rows: list[Row] = json.loads((RESULTS / "accuracy" / f"{name}.json").read_text())["rows"]
    return rows


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def shown(value: float | str | None) -> str:
    """A number in few digits; of words instead of one the kind of error, or that it warned."""
    if value is None:
        return ""
    if isinstance(value, str):
        error = re.match(r"(\w+): ", value)
        return error[1] if error else f"{shown(float(value.split()[0]))}, warned"
    if math.isnan(value):
        return "NaN"
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.4f}"


def error(row: Row, side: str) -> float:
    """How far a version is off; infinite where it has no number."""
    value = row[side]
    if isinstance(value, str):
        try:
            value = float(value.split()[0])
        except ValueError:
            return math.inf
    return math.inf if math.isnan(value) else abs(value - row["truth"])


def off(errors: list[float]) -> str:
    """The largest error, and how many there are without a number."""
    known = [e for e in errors if e < math.inf]
    missing = len(errors) - len(known)
    text = "none" if not known else "0" if max(known) == 0 else f"{max(known):.1e}"
    return f"{text}, {missing} of {len(errors)} without a value" if missing else text


def before_and_after(name: str) -> str:
    """All cases of a file that are not times."""
    return table(
        ("case", "before", "after", "truth"),
        (
            (row["case"], *(shown(row.get(key)) for key in ("before", "after", "truth")))
            for row in results(name)
            if "after" in row
        ),
    )


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by a key, in their order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def large_samples() -> str:
    """Largest error of all routes."""
    rows = (row for row in results("large_samples") if "after" in row)
    return table(
        ("samples x features", "largest error before", "after", "truth"),
        (
            (
                case,
                *(off([error(row, side) for row in some]) for side in ("before", "after")),
                shown(some[0]["truth"]),
            )
            for case, some in grouped(rows, lambda row: row["case"].rpartition(":")[0]).items()
        ),
    )


def tight_clusters() -> str:
    """Errors by measure and spread."""
    rows = [row for row in results("tight_clusters") if "after" in row]

    def spread(row: Row) -> str:
        return str(row["case"].partition(":")[0].rpartition(" ")[2])

    spreads = list(grouped(rows, spread))
    by_measure = grouped(rows, lambda row: row["case"].partition(": ")[2])
    return table(
        ("error before / after at a spread of", *spreads),
        (
            (name, *(" / ".join(off([error(row, s)]) for s in ("before", "after")) for row in some))
            for name, some in by_measure.items()
        ),
    )


def few_samples() -> str:
    """Values, chance levels and calibrated values of unrelated features."""
    rows = {row["case"]: row for row in results("few_samples") if "after" in row}
    lines = []
    for case, row in rows.items():
        size, _, name = case.partition(": ")
        if name.startswith(("chance", "calibrated")):
            continue
        chance, calibrated = (
            rows.get(f"{size}: {kind}{name}", {}) for kind in ("chance level of ", "calibrated ")
        )
        lines.append(
            (
                *(size, name, shown(row["before"]).replace("ValueError", "missing")),
                *(shown(each.get(key)) for each, key in ((row, "after"), (chance, "after"))),
                *(shown(each.get(key)) for each, key in ((chance, "truth"), (calibrated, "after"))),
                shown(row["truth"]),
            )
        )
    head = ("independent features", "measure", "before", "after", "chance level")
    return table((*head, "of other data sets", "calibrated", "expected"), lines)


def sampled_features() -> str:
    """With and without the correction."""
    by_units = grouped(results("sampled_features"), lambda row: row["case"].partition(":")[0])
    return table(
        ("units", "`cka`", "`cka_sampled_features`", "of the populations"),
        (
            (units, *(shown(row["after"]) for row in some), shown(some[0]["truth"]))
            for units, some in by_units.items()
        ),
    )


def points(row: Row, kind: str) -> str:
    """A share in per cent with its standard error."""
    share = row[kind]
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / row['repeats']):.1f}"


def coverage() -> str:
    """Shares of intervals of CKA that hold the truth."""
    rows = [row for row in results("coverage") if row["measure"] == "cka"]
    kinds = list(grouped(rows, lambda row: (row["p"], row["noise"], row["truth"])))
    by_size = grouped(rows, lambda row: (row["n"], row["groups"]))
    lines = []
    for (n, batches), some in sorted(by_size.items()):
        of = {(row["p"], row["noise"], row["truth"]): row for row in some}
        lines.append(
            (str(n), str(batches), *(points(of[k], "student") if k in of else "" for k in kinds))
        )
    heads = (f"p = {p}, CKA {truth:.2f}" for p, _, truth in kinds)
    return table(("samples", "batches", *heads), lines)


def coverage_in_words() -> str:
    """What the table says."""
    rows = [row for row in results("coverage") if row["measure"] == "cka"]
    student, plain = ([100 * row[kind] for row in rows] for kind in ("student", "plain"))
    few = [100 * row["plain"] for row in rows if row["groups"] == 4]
    inside = sum(abs(share - 95) <= 2 for share in student)
    repeats = sorted({row["repeats"] for row in rows})
    counts = " to ".join(f"{count:,}" for count in (repeats[0], repeats[-1])[: len(set(repeats))])
    return (
        f"{inside} of {len(rows)} cells are within 2 points of 95 %, all between "
        f"{min(student):.1f} and {max(student):.1f}; ± 1.96 standard errors would cover "
        f"{min(plain):.1f} to {max(plain):.1f} % ({min(few):.1f} to {max(few):.1f} with 4 "
        f"batches). {counts} data sets a cell."
    )


def coverage_of_others() -> str:
    """The same of measures that have a jackknife over samples."""
    rows = [row for row in results("coverage") if row["measure"] != "cka"]
    return table(
        ("measure", "samples", "p", "population", "mean", "coverage, %", "less bias"),
        (
            (
                *(row["measure"], str(row["n"]), str(row["p"])),
                *(shown(row["truth"]), shown(row["mean"])),
                *(points(row, kind) for kind in ("student", "less_bias")),
            )
            for row in sorted(rows, key=lambda row: (row["measure"], row["n"], row["p"]))
        ),
    )


def precision() -> str:
    """Errors by policy and by what a processor multiplies in then."""
    rows = [*results("precision"), *results("precision_amx")]
    found = grouped(rows, lambda row: f"{row['policy']}, products in {row['products_in']}")
    kinds = list(dict.fromkeys(row["features"] for row in rows))
    lines = []
    for policy, some in found.items():
        first = {row["features"]: row for row in reversed(some)}
        errors = (f"{first[k]['median_error']:.0e} / {first[k]['max_error']:.0e}" for k in kinds)
        lines.append((policy, *errors))
    return table(("median / largest error", *kinds), [*lines, ("tf32", *["no GPU"] * len(kinds))])


def cost() -> str:
    """Times after over times before."""
    lines = []
    for name in ("large_samples", "tight_clusters", "few_samples"):
        timed = (row for row in results(name) if "after_s" in row)
        for case, some in grouped(timed, lambda row: row["case"].rpartition(":")[0]).items():
            times = (
                f"{row['case'].rpartition(': ')[2]} {_ratio(row)} ({row['after_s']:.2g} s)"
                for row in some
            )
            lines.append((case.removeprefix("time, "), "; ".join(times)))
    for row in results("tokens_and_layout"):
        if "share_of_1280" in row:
            what = f"{row['case'].removeprefix('cost: ')}: finding the samples of layers"
            share = f"{row['share_of_1280']:.1%} of the forward passes of 1,280 images"
            lines.append((what, f"{share} ({row['median_s']:.2g} s)"))
    return table(("", "time after / before (after)"), lines)


def _ratio(row: Row) -> str:
    return "no value before," if row["ratio"] is None else f"{row['ratio']:.2f}"


def grid_time() -> str:
    """Before and after in processes in turn."""
    rows = [row for row in results("grid_time") if "ratio" in row]
    lines = [
        (row["case"].rpartition(", ")[2], f"{row['before_units']:.2f}", f"{row['after_units']:.2f}")
        for row in rows
    ]
    return table(("time over two bare forward passes", "before", "after"), lines)


def layer_grid() -> str:
    """Recorded runs of benchmarks/test_layer_grid.py."""
    lines = []
    for path in sorted(RESULTS.glob("*/layer_grid.json")):
        held = json.loads(path.read_text())
        for row in held["rows"]:
            if row["case"] in ("float32", "bfloat16"):
                where = row.get("machine", held["machine"])
                machine = f"{where['processor']}, {where['threads']} threads"
                grid = f"{row['ratio_to_forwards']:.2f}"
                largest = f"{row['max_error']:.1e}"
                lines.append((machine, where["commit"], row["case"], grid, largest))
    head = ("machine", "commit", "precision", "time over two bare forward passes")
    return table((*head, "largest error of a cell"), lines)
