"""The folder of a comparison: which files, and that they can be read."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from python_tests.comparison.made_result import make
from repsim_fast import SimilarityResult
from repsim_fast.report import write_folder


def test_has_report_pictures_table_and_result(tmp_path: Path) -> None:
    result = make((3, 2))
    report = write_folder(tmp_path / "new", result, title="A title")
    assert "A title" in report.read_text(encoding="utf-8")
    assert {path.name for path in report.parent.iterdir()} == {
        *("report.html", "similarities.csv", "result.safetensors", "heatmaps.png"),
        *("cka-a.png", "cka-b.png", "cka-a-b.png"),
    }
    loaded = SimilarityResult.load(report.parent / "result.safetensors")
    np.testing.assert_array_equal(loaded.value, result.value)
    with (report.parent / "similarities.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    assert float(rows[1]["value"]) == result.value[0, 1]


def test_pictures_minus_chance_where_asked_for(tmp_path: Path) -> None:
    result = replace(make((2,)), chance=np.full((2, 2), 0.3))
    report = write_folder(tmp_path, result, minus_chance=True)
    assert (tmp_path / "heatmaps-minus-chance.png").is_file()
    assert "minus chance level" in report.read_text(encoding="utf-8")


def test_names_of_pictures_differ(tmp_path: Path) -> None:
    result = make((2, 2))
    names = SimilarityResult(**{**vars(result), "models": ("a/b", "a b")})
    write_folder(tmp_path, names)
    assert {path.name for path in tmp_path.glob("cka-*.png")} == {
        *("cka-a_b.png", "cka-a_b-2.png", "cka-a_b-a_b-2.png"),
    }
