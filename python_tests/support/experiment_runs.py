"""What a run of any experiment must give, and how tests run one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.lab import cards, command, readme
from experiments.lab.experiment import Experiment
from experiments.lab.files import digest, plain
from experiments.lab.presets import Preset
from experiments.lab.report import Report
from repsim_fast import models

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


def asked_of_each_question(
    experiment: Experiment, lab: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> Iterator[tuple[str, set[str], list[Any]]]:
    """Of each question, run with untrained networks, the names of the networks that it asked for,
    and the recipes that it had named before: were some missing, one process would train them while
    the others have nothing to do."""
    asked: set[str] = set()
    kept: dict[tuple[str, str, str], tuple[Any, set[str]]] = {}

    def train(recipe: Any) -> cards.Card:
        asked.add(recipe.name)
        folder = lab.networks.folder / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        return cards.read(folder / "card.json") or cards.Card({}, 0.0, "", "", [])

    def load(recipe: Any, epoch: int | None = None) -> Any:
        train(recipe)
        return models.build(recipe.architecture, num_classes=10, in_channels=1, seed=0)

    def measured(recipe: Any, name: str, settings: Any, measure: Callable[[], Any]) -> Any:
        """Once for all questions: what the measurement itself asks for is asked for again."""
        train(recipe)
        key = (recipe.name, name, digest(settings))
        if key not in kept:
            before = set(asked)
            asked.clear()
            kept[key] = plain(measure()), set(asked)
            asked.update(before)
        asked.update(kept[key][1])
        return kept[key][0]

    monkeypatch.setattr(lab.networks, "measured", measured)
    monkeypatch.setattr(lab.networks, "load", load)
    monkeypatch.setattr(lab.networks, "train", train)
    monkeypatch.setattr(Report, "picture", lambda *_: None)  # which cost time only
    for number, question in experiment.questions.items():
        asked.clear()
        lab.work = folder / number  # nothing is kept from the question before
        lab.networks.folder = lab.work / "networks"
        question.run(lab, Report(folder / "results", number))
        yield number, set(asked), list(question.recipes(lab))


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
