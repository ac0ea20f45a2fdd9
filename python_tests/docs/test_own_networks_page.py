"""The examples of the page on one's own networks and data run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from docs.update_pretrained import updated
from python_tests.support.commands import run_command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own_networks.md").read_text()


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page: commands use files that Python has written."""
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        folder = tmp_path / "images" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        color = (number * 12, 100, 250 - number)
        Image.new("RGB", (32, 32), color).save(folder / f"{number}.png")
    scope: dict[str, Any] = {}
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} == {"python", "sh"}
    for language, block in blocks:
        if language == "python":
            exec(block, scope)
            continue
        for command in block.replace("\\\n", " ").replace("DATA", "folder:images").splitlines():
            program, *arguments = shlex.split(command)
            assert program == "repsim-fast"
            result = run_command(*arguments, "--threads", 1)
            assert result.exit_code == 0, f"{command}\n{result.output}"


def test_the_table_is_that_of_the_files() -> None:
    assert updated(PAGE) == PAGE, "python -m docs.update_pretrained"
