"""A benchmark that is run in part keeps what it has not measured, and says where it is from."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from python_tests.support.forked import run_python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HERE, THERE = ({"processor": "one", "commit": commit} for commit in ("new", "old"))

BENCHMARK = """
import pytest

@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_case(case, record):
    record(f"{case} ours", median_s=SECONDS)
    record(f"{case} theirs", median_s=2 * SECONDS)
"""


def run(folder: Path, seconds: float, *options: str) -> dict[str, Any]:
    """The results file after a run of the benchmark above."""
    (folder / "test_made_up.py").write_text(BENCHMARK.replace("SECONDS", str(seconds)))
    command = ["-q", "-p", "conftest", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, f"--rootdir={folder}", "--record-to", str(folder / "out")]
    paths = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", ""), os.getcwd()])
    result = run_python(
        "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))",
        *command, "test_made_up.py", *options,
        cwd=folder,
        env={"PYTHONPATH": paths},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    held: dict[str, Any] = json.loads((folder / "out" / "made_up.json").read_text())
    return held


def test_a_run_of_some_cases_keeps_the_others(tmp_path: Path) -> None:
    first = run(tmp_path, 1.0)
    cases = [f"{case} {who}" for case in "abc" for who in ("ours", "theirs")]
    assert [row["case"] for row in first["rows"]] == cases
    path = tmp_path / "out" / "made_up.json"
    path.write_text(json.dumps({**first, "machine": {**first["machine"], "commit": "earlier"}}))
    second = run(tmp_path, 3.0, "-k", "b")
    assert second["machine"] == first["machine"]
    assert [row["case"] for row in second["rows"]] == cases
    for row in second["rows"]:
        again = row["case"].startswith("b")
        assert row["median_s"] == (3.0 if again else 1.0) * (2 if "theirs" in row["case"] else 1)
        expected = None if again else {**first["machine"], "commit": "earlier"}
        assert row.get("machine") == expected


def test_times_are_kept_where_they_are_asked_for_only(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed")
    with pytest.raises(FileNotFoundError, match=r"made_up\.json"):
        run(tmp_path, 1.0, "--benchmark-disable")
    # As the project's own settings disable them.
    assert run(tmp_path, 1.0, "--benchmark-disable", "--benchmark-enable")["rows"]


def merged(held: dict[str, Any], *rows: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = runpy.run_path(str(BENCHMARKS / "timing.py"))["merged"](
        held, HERE, list(rows)
    )
    return found


def test_rows_keep_the_machine_of_their_own_run() -> None:
    """Also over a third run, and no longer than it differs from the file's."""
    held = {
        "machine": THERE,
        "rows": [
            {"case": "a", "machine": {"processor": "another"}},
            {"case": "b"},
            {"case": "c", "machine": HERE},
            {"case": "d"},
        ],
    }
    assert merged(held, {"case": "d"}, {"case": "e"}) == {
        "machine": HERE,
        "rows": [
            {"case": "a", "machine": {"processor": "another"}},
            {"case": "b", "machine": THERE},
            {"case": "c"},
            {"case": "d"},
            {"case": "e"},
        ],
    }


def test_a_run_of_all_leaves_nothing_of_the_earlier_one() -> None:
    held = {"machine": THERE, "rows": [{"case": "a", "median_s": 1, "gflops": 2}]}
    assert merged(held, {"case": "a", "median_s": 3}) == {
        "machine": HERE,
        "rows": [{"case": "a", "median_s": 3}],
    }


def test_figures_of_several_runs_are_not_drawn_as_one(tmp_path: Path) -> None:
    main = runpy.run_path(str(BENCHMARKS / "plot_cost.py"))["main"]
    rows = [
        {"case": f"cost of {n} layers", "layers": n, "median_s": n * n, "per_layer": 1.0}
        for n in (2, 4)
    ]
    source, target = tmp_path / "measures.json", tmp_path / "cost.png"
    source.write_text(json.dumps({"machine": HERE, "rows": rows}))
    main(str(source), str(target))
    assert target.stat().st_size > 0
    rows[1]["machine"] = THERE
    source.write_text(json.dumps({"machine": HERE, "rows": rows}))
    with pytest.raises(SystemExit, match="several machines or versions"):
        main(str(source), str(target))


def test_nor_is_a_ratio_taken_of_them() -> None:
    times_as_fast = runpy.run_path(str(BENCHMARKS / "readme_table.py"))["times_as_fast"]
    slow = {"case": "slow", "median_s": 3.0, "machine": HERE}
    assert times_as_fast(slow, {"case": "fast", "median_s": 2.0, "machine": HERE}) == 1.5
    with pytest.raises(SystemExit, match="slow and fast were not measured together"):
        times_as_fast(slow, {"case": "fast", "median_s": 2.0, "machine": THERE})


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nmodel\t: 3\n",
            "AMD EPYC family 26 model 2",
        ),
        ("processor : 0\nBogoMIPS : 50.00\n", "cpu"),
    ],
)
def test_machines_are_told_apart_by_the_model_of_their_processor(cpuinfo: str, name: str) -> None:
    assert runpy.run_path(str(BENCHMARKS / "timing.py"))["processor_of"](cpuinfo) == name
