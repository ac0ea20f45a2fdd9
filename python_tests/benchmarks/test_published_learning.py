"""The learning benchmark on the CPU, with a small network and few images: the script itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning
from benchmarks.learning import GO_ON, Target
from repsim_fast.training import recipes

NAME = "rs-fgsm-wong2020"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One recipe with a small network, and a published value for its second and fourth epoch."""

    def make(*published: tuple[float, float]) -> None:
        epochs = dict(zip((1, 3), published, strict=False))
        monkeypatch.setattr(learning, "TARGETS", {NAME: Target(epochs, "nobody", steps=2)})

    recipe = replace(recipes.get(NAME), model="resnet-digits")
    monkeypatch.setattr(recipes, "get", lambda name: recipe)
    return make


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *options: str) -> int:
    fixed = ["--data", "digits", "--limit", "64", "--device", "cpu", "--recipes", NAME]
    paths = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "learning.json")]
    monkeypatch.setattr(sys, "argv", ["learning", *fixed, *paths, *options])
    return learning.main()


def test_trains_to_the_last_published_epoch_and_no_further(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Any
) -> None:
    small((1.0, 0.0), (2.0, 0.0))
    assert run(monkeypatch, tmp_path) == 0
    assert len(learning.epochs_of(tmp_path / "work" / NAME / "log.jsonl")) == 4
    result = json.loads((tmp_path / "learning.json").read_text())
    assert [row["case"] for row in result["rows"]] == [
        f"{NAME}, epoch 1, PGD-2",
        f"{NAME}, epoch 3, PGD-2",
    ]
    assert all(0 <= row["robust"] <= row["clean"] <= 100 for row in result["rows"])
    assert run(monkeypatch, tmp_path) == 0  # nothing left to train


def test_a_value_that_is_not_reached_is_status_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    small((100.0, 100.0))
    assert run(monkeypatch, tmp_path) == 1
    assert "NOT REACHED" in capsys.readouterr().out


def test_values_that_nobody_looked_up_give_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Target({0: (100.0, 100.0)}, "memory", verified=False)
    monkeypatch.setattr(learning, "TARGETS", {NAME: target})
    epoch = {"clean_accuracy": 0.1, "robust_accuracy": 0.1, "seconds": 1.0}
    (row,) = learning.rows(NAME, [epoch])
    assert row["reached"] is None
    assert "not verified" in learning.shown(row)


def test_stops_between_epochs_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Any
) -> None:
    small((1.0, 0.0))
    assert run(monkeypatch, tmp_path, "--minutes", "0") == GO_ON
    assert not (tmp_path / "learning.json").exists()
    assert run(monkeypatch, tmp_path) == 0


def test_a_training_on_other_images_does_not_pass_for_one_on_these(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: Any
) -> None:
    small((1.0, 0.0))
    assert run(monkeypatch, tmp_path) == 0
    with pytest.raises(SystemExit, match="holds a training on other images"):
        run(monkeypatch, tmp_path, "--limit", "70")


def test_targets_are_recipes_and_lie_within_their_schedules() -> None:
    for name, target in learning.TARGETS.items():
        assert max(target.published) < recipes.get(name).settings["epochs"]
