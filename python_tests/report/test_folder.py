"""The folder of a comparison: which files, and that they can be read."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from python_tests.comparison.made_result import make
from repsim_fast import SimilarityResult, compare
from repsim_fast._core.locks import only_writer
from repsim_fast.report import load_folder, write_figures, write_folder, write_table


def test_has_report_pictures_table_and_result(tmp_path: Path) -> None:
    result = make((3, 2))
    report = write_folder(tmp_path / "new", result, title="A title")
    assert "A title" in report.read_text(encoding="utf-8")
    assert {path.name for path in report.parent.iterdir()} == {
        *("report.html", "similarities.csv", "models.csv", "result.safetensors"),
        *("heatmaps.png", "manifest.json"),
    }
    loaded = SimilarityResult.load(report.parent / "result.safetensors")
    np.testing.assert_array_equal(loaded.value, result.value)
    with (report.parent / "similarities.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    assert float(rows[1]["value"]) == result.value[0, 1]


def test_the_table_of_models_has_the_means_of_each_grid(tmp_path: Path) -> None:
    result = replace(make((3, 2, 2)), models=("a", "=b", "c,d"))
    write_folder(tmp_path, result, figures=False)
    with (tmp_path / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["model_a"], row["model_b"], row["mean"]) for row in rows]
    assert found == [
        ("a", "a", "mean off-diagonal"),
        ("'=b", "'=b", "mean off-diagonal"),
        ("c,d", "c,d", "mean off-diagonal"),
        ("a", "'=b", "mean of all pairs"),
        ("a", "c,d", "mean of all pairs"),
        ("'=b", "c,d", "mean same layer"),
        ("'=b", "c,d", "mean off-diagonal"),
    ]
    cross = result.between("a", "=b")
    assert float(rows[3]["value"]) == cross.value.mean()
    assert {row["standard_error"] for row in rows} == {""}  # without groups of batches
    assert {row["chance"] for row in rows} == {""}


def test_the_table_of_models_has_errors_and_chance(tmp_path: Path) -> None:
    nets = {name: torch.nn.Sequential(torch.nn.Linear(6, 4)) for name in ("a", "b")}
    result = compare(nets, torch.randn(64, 6), batch_size=16)
    write_folder(tmp_path, result, figures=False)
    with (tmp_path / "models.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[2]
    mean = result.between("a", "b").figures()[0]
    assert float(row["standard_error"]) == mean.standard_error > 0
    assert float(row["chance"]) == mean.chance


def test_pictures_minus_chance_where_asked_for(tmp_path: Path) -> None:
    result = replace(make((2,)), chance=np.full((2, 2), 0.3))
    report = write_folder(tmp_path, result, minus_chance=True)
    assert (report.parent / "heatmaps-minus-chance.png").is_file()
    with pytest.raises(ValueError, match="expected the chance levels"):
        write_folder(tmp_path, make((2,)), minus_chance=True)


def test_without_figures(tmp_path: Path) -> None:
    write_folder(tmp_path, make((2, 2)), figures=False)
    assert not list(tmp_path.glob("*.png"))
    assert (tmp_path / "report.html").is_file()


def test_many_models_are_one_small_picture_and_table(tmp_path: Path) -> None:
    result = make((30,) * 4)
    write_folder(tmp_path, result)
    (picture,) = tmp_path.glob("*.png")
    assert max(Image.open(picture).size) < 1000
    (table,) = tmp_path.glob("*.csv")
    assert len(table.read_text().splitlines()) == 1 + 4 + 2 * 6
    table = write_table(tmp_path / "all", result)
    assert len(table.read_text().splitlines()) == 1 + 120**2


def called(*models: str, measure: str = "cka") -> SimilarityResult:
    result = make((1,) * len(models))
    return SimilarityResult(**{**vars(result), "models": models, "measure": measure})


@pytest.mark.parametrize(
    "models",
    [
        ("a/b", "a b"),
        ("a", "b", "a-b"),
        ("a", "A"),
        ("e\u0301", "\u00e9"),
        ("x" * 300, "x" * 299),
        ("ä" * 200, "ä"),
        ("..", "../a"),
        ("", "nul"),
    ],
)
def test_every_grid_has_a_picture_of_its_own(tmp_path: Path, models: tuple[str, ...]) -> None:
    result = called(*models)
    paths = write_figures(tmp_path / "in", result)
    assert all(path.is_file() for path in paths)
    names = [path.name for path in (tmp_path / "in").glob("cka-*.png")]
    assert len({name.casefold() for name in names}) == len(result.grids())
    assert max(len(name.encode()) for name in names) < 200
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_measure_cannot_leave_the_folder(tmp_path: Path) -> None:
    write_figures(tmp_path / "in", called("a", measure="../../out"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len(list((tmp_path / "in").glob("*out-a.png"))) == 1


class Killed(BaseException):
    """Stands for a kill: nothing in the code may handle it."""


@pytest.mark.parametrize("moves", range(7))
def test_a_folder_has_one_comparison_after_any_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    write_folder(tmp_path, called("a", "b"))
    (tmp_path / "partial.safetensors").touch()
    (tmp_path / "mine.txt").touch()
    replace, made = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        if Path(target).parent == tmp_path:
            if len(made) == moves:
                raise Killed
            made.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    try:
        write_folder(tmp_path, called("a", "c"), outdated=["partial.safetensors"])
    except Killed:
        assert moves < 6
    monkeypatch.undo()
    assert load_folder(tmp_path).models == ("a", "c")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.html", "similarities.csv", "models.csv", "result.safetensors"),
        *("heatmaps.png", "manifest.json", "mine.txt"),
    }


def test_a_failure_before_the_change_leaves_the_old_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, called("a", "b"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / ".next").mkdir()  # as a kill in the middle of the writing leaves it
    (tmp_path / ".next" / "result.safetensors").touch()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("repsim_fast.report.folder.write_report", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path, called("c"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_other_than_listed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="manifest"):
        load_folder(tmp_path)
    write_folder(tmp_path, called("a"))
    manifest = tmp_path / "manifest.json"
    kept = manifest.read_text()
    for text in ("", "{}", kept.replace("result.", "other."), kept.replace("result.", "../r.")):
        manifest.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            load_folder(tmp_path)
    manifest.write_text(kept)
    (tmp_path / "similarities.csv").write_text("changed")
    with pytest.raises(ValueError, match=r"similarities\.csv is missing or not"):
        load_folder(tmp_path)


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(OSError, match="is being written by another run"):
        write_folder(tmp_path, called("a"))
    assert not list(tmp_path.iterdir())


def test_several_results_share_a_page_and_have_a_folder_each(tmp_path: Path) -> None:
    write_folder(tmp_path, make((1, 1)), figures=False)
    results = {name: make((1, 1)) for name in ("one", "two")}
    page = write_folder(tmp_path, results, figures=False)
    assert page == tmp_path / "report.html"
    assert all(f"<h2>{name}</h2>" in page.read_text() for name in results)
    # What the one result left went with its page.
    assert {p.name for p in tmp_path.iterdir()} >= {"one", "two", "report.html", "manifest.json"}
    assert not (tmp_path / "result.safetensors").exists()
    for name in results:
        assert not (tmp_path / name / "report.html").exists()
        assert load_folder(tmp_path / name).n_samples == results[name].n_samples
