from __future__ import annotations

import subprocess
import sys

import pytest

import repsim_fast
from python_tests.support.commands import Run


@pytest.mark.parametrize(
    "command", ["demo", "train", "attack", "certify", "prune", "compare", "info"]
)
def test_each_command_explains_itself_with_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"repsim-fast {command}" in result.output.partition("Example")[2]
    assert command in run("--help").output


def test_options_say_what_they_take(run: Run) -> None:
    text = " ".join(run("train", "--help").output.split())
    for word in ("'digits'", "parquet", "cifar10:PATH", "folder:PATH", "wrn-D-K", "pgd", "8/255"):
        assert word in text


def test_no_command_shows_the_help(run: Run) -> None:
    assert run().exit_code == 2
    assert "repsim-fast demo" in run().output


def test_version(run: Run) -> None:
    assert run("--version").output.startswith(f"repsim-fast {repsim_fast.__version__} (torch ")


def test_module_and_script_are_the_same_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "repsim_fast", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith(f"repsim-fast {repsim_fast.__version__}")
