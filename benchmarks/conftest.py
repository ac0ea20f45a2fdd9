"""Benchmarks: `pytest benchmarks --benchmark-enable`; with `--record` the figures are kept in
benchmarks/results/<machine>/<file>.json, which README and notes link to. Rows of cases that did not
run (`-k`) stay in the file."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timing
import torch
from timing import Row, machine, machine_name, merged, write_json

RESULTS = Path(__file__).parent / "results"
_rows: dict[str, list[Row]] = {}
_machine = functools.cache(machine)  # before the first file changes the working tree


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the figures to results/<machine>")
    parser.addoption("--record-to", type=Path, help="write the figures to this folder")


def pytest_configure(config: pytest.Config) -> None:
    """Where benchmarks are disabled, as they are unless asked for, only correctness is checked."""
    disabled = config.getoption("benchmark_disable", False)
    timing.timed = not disabled or config.getoption("benchmark_enable")


if importlib.util.find_spec("pytest_benchmark") is None:

    class _Once:
        """Stands in for pytest-benchmark where that is not installed: runs, times nothing. The
        figures that are kept come from timing.py either way."""

        def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
            return function(*args, **options)

        def pedantic(self, function: Callable[..., Any], **options: Any) -> Any:
            return function(*options.get("args", ()), **options.get("kwargs", {}))

    @pytest.fixture
    def benchmark() -> _Once:
        return _Once()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """record(case, **figures): one row of the results file of this benchmark."""
    name = Path(request.node.path).stem.removeprefix("test_")

    def add(case: str, **figures: Any) -> None:
        if not timing.timed:
            return
        row = {"case": case, **figures}
        _rows.setdefault(name, []).append(row)
        _write(request.config, name)  # at once: a part that is stopped keeps what it has
        print("\n" + "  ".join(f"{k}={_short(v)}" for k, v in row.items()))

    return add


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write(config: pytest.Config, name: str) -> None:
    folder = config.getoption("--record-to")
    if folder is None and config.getoption("--record"):
        folder = RESULTS / machine_name()
    if folder is not None:
        path = folder / f"{name}.json"
        where = _machine()
        held = json.loads(path.read_text()) if path.exists() else {"machine": where, "rows": []}
        write_json(path, merged(held, where, _rows[name]))
