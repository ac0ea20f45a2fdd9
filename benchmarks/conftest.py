"""Benchmarks: `pytest benchmarks --benchmark-enable`; with `--record` the figures are kept in
benchmarks/results/<machine>/<file>.json, which README and notes link to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timing import machine, machine_name, write_json

RESULTS = Path(__file__).parent / "results"
_rows: dict[str, list[dict[str, Any]]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the figures to results/<machine>")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """record(case, **figures): one row of the results file of this benchmark."""
    name = Path(request.node.path).stem.removeprefix("test_")

    def add(case: str, **figures: Any) -> None:
        row = {"case": case, **figures}
        _rows.setdefault(name, []).append(row)
        print("\n" + "  ".join(f"{k}={_short(v)}" for k, v in row.items()))

    return add


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--record"):
        return
    for name, rows in _rows.items():
        path = RESULTS / machine_name() / f"{name}.json"
        write_json(path, {"machine": machine(), "rows": rows})
