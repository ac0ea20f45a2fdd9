"""`repsim-fast report`: pages and figures of results that are there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from python_tests.comparison.made_result import make
from python_tests.support.commands import Run
from repsim_fast.cli.shown import show
from repsim_fast.comparison.result import load
from repsim_fast.report import load_folder


def test_one_result_with_figures(run: Run, tmp_path: Path) -> None:
    make((2, 2)).save(tmp_path / "result.safetensors")
    out, figures = tmp_path / "page.html", tmp_path / "figures"
    done = run("report", tmp_path, "--out", out, "--title", "A title", "--figures", figures)
    assert done.exit_code == 0, done.output
    assert f"Open {out} (2.0 MB)" in done.output
    assert "A title" in out.read_text(encoding="utf-8")
    assert {path.name for path in figures.iterdir()} == {"cka-a.png", "cka-b.png", "cka-a-b.png"}


def test_tables_where_asked_for(run: Run, tmp_path: Path) -> None:
    made = make((2, 2))
    files = [made.save(tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    tables = tmp_path / "tables"
    done = run("report", files[0], "--out", tmp_path / "page.html", "--tables", tables)
    assert f"table: {tables / 'similarities.csv'}" in done.output
    assert len((tables / "similarities.csv").read_text().splitlines()) == 1 + 4 * 4
    done = run("report", *files, "--out", tmp_path / "page.html", "--tables", tables)
    assert done.exit_code == 0, done.output
    assert (tables / "1" / "similarities.csv").is_file()


def test_several_measures(run: Run, tmp_path: Path) -> None:
    made = make((2, 2))
    files = [made.save(tmp_path / "one.safetensors")]
    files.append(replace(made, measure="cca").save(tmp_path / "two.safetensors"))
    done = run("report", *files, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h2>one</h2>" in text
    assert "<h2>two</h2>" in text
    again = run("report", files[0], files[0], "--out", tmp_path / "page.html")
    assert again.exit_code == 1
    assert "must be different files" in again.output


def test_a_folder_of_several_measures_stands_for_all(run: Run, tmp_path: Path) -> None:
    made, both = make((2, 2)), tmp_path / "both"
    for measure in ("rsa", "cca"):
        replace(made, measure=measure).save(both / measure / "result.safetensors")
    made.save(both / ".next" / "result.safetensors")  # of a change that has not come to pass
    done = run("report", both, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.index("<h2>cca</h2>") < text.index("<h2>rsa</h2>")
    assert text.count("<h2>") == 2
    assert sorted(path.name for path in tmp_path.glob("figures/*/*-a-b.png")) == [
        "cca-a-b.png",
        "rsa-a-b.png",
    ]
    inside = f"but in {both / 'cca'}, {both / 'rsa'}, of a measure each: give one of them"
    for loader in (load, load_folder):
        with pytest.raises(FileNotFoundError, match=re.escape(inside)):
            loader(both)


def test_no_result(run: Run, tmp_path: Path) -> None:
    done = run("report", tmp_path, "--out", tmp_path / "page.html")
    assert done.exit_code == 1
    assert "there is no file" in done.output
    done = run("report", tmp_path, "--out", tmp_path / "page.txt")
    assert "must be a name that ends in .html" in done.output


def test_many_models_are_said_in_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show(make((2,) * 4))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("6 pairs of models") for line in lines)
    assert any("repsim-fast report --tables" in line for line in lines)
    assert len(lines) < 12
    show(make((2,) * 3))
    said = capsys.readouterr().out
    assert "mean off-diagonal" in said
    assert "--tables" not in said
