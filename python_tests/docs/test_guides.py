"""The examples of the guides run, in the order of the page, and print what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from python_tests.support.commands import run_command
from repsim_fast.cli.app import loaded

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ("start", "certainty", "robust_networks", "transformers", "zoos", "tasks")
BLOCK = re.compile(r"^```([a-z]+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d+(?:e-\d+)?")
# Another processor rounds otherwise, and trainings of seconds end elsewhere then.
CLOSE, CLOSE_IF_TRAINED = 0.05, 0.25
TRAINED = ("start", "robust_networks")
# Appended to commands, for the sake of time; the last of an option counts.
FEW = {
    "train": ["--epochs", 1, "--limit", 60, "--test-limit", 20, "--threads", 1],
    "attack": ["--limit", 10, "--threads", 1],
    "certify": ["--limit", 5, "--threads", 1],
    "compare": ["--no-figures", "--threads", 1],
    "record": ["--limit", 100, "--threads", 1],
}


@pytest.mark.parametrize("page", GUIDES)
def test_examples(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """```python and ```sh run, ```text is what Python before it prints, ```bash is parsed."""
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    printed = ""
    for language, block in blocks(page):
        if language == "python":
            exec(compile(block, f"docs/{page}.md", "exec"), scope)
            printed = capsys.readouterr().out
        elif language == "text":
            assert_like(printed, block, CLOSE_IF_TRAINED if page in TRAINED else CLOSE)
        elif language in ("sh", "bash"):
            for command in block.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(command)
                if language == "sh":
                    assert program == "repsim-fast"
                    run(arguments)
                else:
                    parse(program, arguments)
            capsys.readouterr()


@pytest.mark.parametrize(("page", "package"), [("transformers", "transformers")])
def test_examples_with_other_packages(page: str, package: str) -> None:
    pytest.importorskip(package)
    found = [block for language, block in blocks(page) if language == "py"]
    assert found
    for block in found:
        exec(compile(block, f"docs/{page}.md", "exec"), {})


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the code of a page."""
    return BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text())


def assert_like(printed: str, shown: str, close: float) -> None:
    """The same words, and numbers close by."""
    assert NUMBER.sub("0", printed).split() == NUMBER.sub("0", shown).split(), printed
    numbers = ([float(x) for x in NUMBER.findall(text)] for text in (printed, shown))
    assert next(numbers) == pytest.approx(next(numbers), abs=close), printed


def run(arguments: list[str]) -> None:
    few = FEW.get(arguments[0], [])
    if arguments[0] == "compare" and "--data" in arguments:  # recordings alone have what they have
        few = [*few, "--limit", 100]
    result = run_command(*arguments, *few)
    assert result.exit_code == 0, f"{arguments}\n{result.output}"


def parse(program: str, arguments: list[str]) -> None:
    """A command that would take long or need a network: its options are ours, its files exist."""
    if program == "repsim-fast":
        loaded(arguments[0]).make_context(arguments[0], arguments[1:])
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    else:
        assert (program, arguments[0]) == ("pip", "install")
        extras = re.findall(r"\.\[([a-z,]+)\]", " ".join(arguments))
        project = (ROOT / "pyproject.toml").read_text()
        for name in ",".join(extras).split(",") if extras else []:
            assert re.search(rf"^{name} = \[", project, re.MULTILINE), name
