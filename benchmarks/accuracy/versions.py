"""The same cases computed with two versions of the package, each in processes of its own.

A script gives `compare_versions` its cases and, with ``--before CHECKOUT --out FILE``, gets a
results file of rows with ``before``, ``after`` and, where a case knows it, ``truth``. CHECKOUT is a
working tree of an earlier version, compiled. Import this module first: it decides which version
``import repsim_fast`` finds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = "REPSIM_FAST_VALUES_OF"  # whose values a process is to print
WHAT = "REPSIM_FAST_WHAT"  # "values" or "times"
sys.path[:0] = [os.environ.get(CHECKOUT, str(ROOT)), str(ROOT)]

import torch  # noqa: E402

Value = float | str | None
Values = Mapping[str, Callable[[], Any]]
"""What one version computes, by name; a number, or what it says instead."""

ROUNDS = 5  # processes of each version, in turn, that times are medians of


def compare_versions(
    values: Values,
    truth: Mapping[str, Callable[[], float]] | None = None,
    times: Values | None = None,
    unit: Callable[[], Any] | None = None,
) -> None:
    """Runs the script of a theme: computes, or has both versions compute and writes what they say.

    Args:
        values: Cases.
        truth: Right values of cases, computed apart from the package.
        times: Cases to time, both versions in turn.
        unit: What their times are multiples of, timed beside them in every round; without it they
            are seconds.
    """
    torch.set_num_threads(1)
    what = os.environ.get(WHAT)
    if what == "values":
        print(json.dumps({name: _said(case) for name, case in values.items()}))
        return
    if what == "times":
        timed = times or {}
        if unit is None:
            print(json.dumps({name: _seconds(case) for name, case in timed.items()}))
        else:
            print(json.dumps(_multiples(timed, unit)))
        return
    from benchmarks.timing import machine, write_json

    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args()
    sides = {"before": options.before.resolve(), "after": ROOT}
    found = {side: _of_process(path, "values") for side, path in sides.items()}
    rows: list[dict[str, Any]] = []
    for name in values:
        row = {"case": name, "before": found["before"][name], "after": found["after"][name]}
        if truth and name in truth:
            row["truth"] = truth[name]()
        rows.append(row)
    if times:
        rounds = [
            {side: _of_process(path, "times") for side, path in sides.items()}
            for _ in range(ROUNDS)
        ]
        for name in times:
            before, after = (_median([each[side][name] for each in rounds]) for side in sides)
            ratio = None if before is None or after is None else after / before
            of = "s" if unit is None else "units"
            times_of = {f"before_{of}": before, f"after_{of}": after}
            rows.append({"case": name, **times_of, "ratio": ratio})
    write_json(options.out, {"machine": machine(), "rows": rows})
    for row in rows:
        print(row)


def _of_process(checkout: Path, what: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, sys.argv[0]],
        env={**os.environ, CHECKOUT: str(checkout), WHAT: what},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(run.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _said(case: Callable[[], Any]) -> Value:
    """A number, or the error or warning instead of it or beside it."""
    import repsim_fast

    assert Path(repsim_fast.__file__).is_relative_to(os.environ[CHECKOUT]), repsim_fast.__file__
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = case()
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    of_ours = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    if math.isnan(number) or of_ours:
        return " ".join([f"{number:.4g}", *of_ours])
    return number


def _median(seconds: list[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return statistics.median(known) if known else None


def _seconds(case: Callable[[], Any]) -> float | None:
    """Median of a few runs after one; None where the version has no value."""
    try:
        case()
    except (ArithmeticError, RuntimeError, TypeError, ValueError):
        return None
    return statistics.median(_time(case) for _ in range(5))


def _multiples(cases: Values, unit: Callable[[], Any]) -> dict[str, float]:
    """Medians of what cases take in units, each round after one."""
    shares: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(8):
        once = _time(unit)
        for name, case in cases.items():
            seconds = _time(case)
            if number > 0:
                shares[name].append(seconds / once)
    return {name: statistics.median(values) for name, values in shares.items()}


def _time(case: Callable[[], Any]) -> float:
    start = perf_counter()
    case()
    return perf_counter() - start
