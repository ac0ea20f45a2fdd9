"""What a run of any experiment must give, and how tests run one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.lab import command, readme
from experiments.lab.experiment import Experiment
from experiments.lab.presets import Preset

VERDICTS = {"holds", "does not", "not testable at this scale"}


def run(
    experiment: Experiment,
    preset: Preset,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *arguments: str,
) -> int:
    """The command's exit status, with ``preset`` in the place of the one named "smoke"."""
    monkeypatch.setitem(experiment.presets, "smoke", preset)  # type: ignore[misc]
    places = ["--work", str(folder / "work"), "--results", str(folder / "results")]
    return command.main(experiment, [*places, "--quiet", *arguments])


def answered(experiment: Experiment, results: Path) -> Any:
    """The record of a run that answered all questions, with its files and verdicts; checked."""
    for question in experiment.questions:
        found = json.loads((results / f"{question}.json").read_text())
        assert found["findings"]
        assert {file.rpartition(".")[2] for file in found["files"]} == {"csv", "png"}
        assert all((results / file).stat().st_size for file in found["files"])
    rows = json.loads((results / "claims.json").read_text())
    assert len(rows) == len(experiment.claims)
    assert {row["verdict"] for row in rows} <= VERDICTS
    # Each claim's evidence is a file that a question wrote.
    assert all((results / row["evidence"]).exists() for row in rows)
    record = json.loads((results / "run.json").read_text())
    assert set(record["questions"]) == set(experiment.questions)
    return record


def trained_again(results: Path, question: str) -> int:
    """Networks that the latest answer to a question trained."""
    record = json.loads((results / "run.json").read_text())["questions"]
    trained: int = record[question]["networks_trained"]
    return trained


def assert_readme_is_up_to_date(experiment: Experiment, block: str, figure: str) -> None:
    """The README has the figures of the results beside it, ``figure`` in ``block`` among them."""
    text = (experiment.folder / "README.md").read_text()
    results = experiment.folder / "results"
    assert f"<!-- {block} -->" in text
    again = f"python -m experiments.{experiment.folder.name} --readme"
    assert readme.updated(text, results, experiment.blocks) == text, again
    emptied = text.replace(figure, "| of old |")
    assert emptied != text
    assert readme.updated(emptied, results, experiment.blocks) == text
