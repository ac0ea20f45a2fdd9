"""The examples of the page on training run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from python_tests.support.commands import run_command
from repsim_fast import data, models

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) >= 3
    return found


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("sh"):
        for command in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(command)
            assert program == "repsim-fast"
            # Of few images, for the sake of time; the last of equal options counts.
            if arguments[0] == "train":
                few = [] if "--limit" in arguments else ["--limit", 20]
                arguments += map(str, ["--test-limit", 10, *few])
            if "--n" in arguments:
                arguments += ["--n", "100"]
            if arguments[0] != "prune":  # which computes next to nothing
                arguments += ["--threads", "1"]
            result = run_command(*arguments)
            assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (tmp_path / "certified.json").exists()


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {
        "torch": torch,
        "model": models.build("resnet-8", num_classes=10, in_channels=1, seed=0),
        "images": data.load("digits", "train", limit=40),
    }
    for block in blocks("python"):
        exec(block, scope)
    assert "validation/pgd" in scope["history"].last.accuracies
