"""Constants of the Gram's plan from measured times."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.kernels import plan_constants
from benchmarks.kernels.plan_constants import THRESHOLDS, best, report

BY_NAME = {threshold.name: threshold for threshold in THRESHOLDS}


def row(n: int, path: str, ms: float, **others: Any) -> dict[str, Any]:
    about = {"n": n, "path": path, "ms": ms, "dtype": "bfloat16", "precision": "bfloat16"}
    return {**about, "right": True, "chosen": False, **others}


TIMES = {  # n: tiles64, tiles128, vendor
    256: (1.0, 1.2, 1.6),
    512: (2.0, 1.9, 2.1),
    1024: (4.0, 3.5, 3.0),
    2048: (9.0, 8.0, 5.0),
}
ROWS = [
    row(n, path, ms)
    for n, times in TIMES.items()
    for path, ms in zip(("tiles64", "tiles128", "vendor"), times, strict=True)
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("kLargeTileSamples", 512), ("kVendorSamples", 1024), ("bulk copies", None)],
)
def test_the_faster_way_on_either_side(name: str, expected: float | None) -> None:
    assert best(BY_NAME[name], ROWS) == expected


def test_never_where_the_other_way_does_not_win() -> None:
    rows = [row(n, path, 1.0) for n in (64, 128) for path in ("single", "bulk")]
    assert best(BY_NAME["bulk copies"], rows) == math.inf


def test_wrong_and_untimed_rows_do_not_count() -> None:
    rows = [*ROWS, row(256, "vendor", 0.1, right=False)]
    rows.append({key: value for key, value in row(512, "vendor", 0.0).items() if key != "ms"})
    assert best(BY_NAME["kVendorSamples"], rows) == 1024


def test_a_loss_in_one_precision_is_weighed_against_a_gain_in_another() -> None:
    small_gain = [
        row(512, "tiles64", 1.0, precision="float32"),
        row(512, "tiles128", 1.5, precision="float32"),
    ]
    assert best(BY_NAME["kLargeTileSamples"], [*ROWS, *small_gain]) == 1024


def test_report_names_constants_and_choices_that_lose() -> None:
    rows = [dict(r, chosen=r["path"] == "tiles64") for r in ROWS]
    lines = report(rows)
    assert "kVendorSamples     1024" in lines
    assert "bulk copies        not measured" in lines
    assert "2048 bfloat16 in bfloat16: tiles64 takes 1.80 times as long as vendor" in lines
    assert not any(line.startswith("256 ") for line in lines)


def test_every_path_that_the_plan_takes_is_a_way() -> None:
    assert {path for t in THRESHOLDS for path in (*t.small, *t.large)} <= set(plan_constants.WAYS)
