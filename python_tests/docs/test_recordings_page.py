"""The examples of the page on recordings run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from python_tests.support.commands import run_command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "recordings.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found = blocks("python")
    assert len(found) == 4
    names: dict[str, Any] = {}
    for block in found:
        exec(compile(block, "docs/recordings.md", "exec"), names)
    assert names["result"].models == ("narrow", "middle", "wide")
    assert (tmp_path / "models.png").exists()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks("sh")
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "repsim-fast"
        few = {"train": ["--limit", 100, "--test-limit", 40], "record": ["--limit", 60]}
        result = run_command(*arguments, *few.get(arguments[0], []), "--threads", 1)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert (tmp_path / "out" / "extended" / "report.html").exists()
