from __future__ import annotations

import os
import subprocess
import sys

import pytest

import repsim_fast
from python_tests.support.commands import Run


@pytest.mark.parametrize(
    "command",
    ["demo", "train", "attack", "certify", "prune", "compare", "record", "extend", "info"],
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


def completing(words: str) -> dict[str, str]:
    """The environment by which bash asks what may follow."""
    number = str(len(words.split()) - 1)
    return {"_REPSIM_FAST_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}


def said(arguments: list[str], environment: dict[str, str], before: str = "") -> str:
    """What the command says in a process of its own, in which another program runs before."""
    program = f"{before}\nfrom repsim_fast.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [
        (["--help"], {}, "Compare networks layer by layer."),
        (["--version"], {}, "(torch "),
        (["comapre"], {}, "'compare'"),
        (["demo", "--help"], {}, "repsim-fast demo"),
        (["report", "--help"], {}, "repsim-fast report"),
        ([], completing("repsim-fast com"), "compare"),
    ],
    ids=["help", "version", "typing error", "help of demo", "help of report", "completion"],
)
def test_what_computes_nothing_does_without_torch(
    arguments: list[str], environment: dict[str, str], shown: str
) -> None:
    forbidden = "import sys; sys.modules.update(torch=None, numpy=None)"
    assert shown in said(arguments, environment, forbidden)


def test_options_are_completed() -> None:
    assert said([], completing("repsim-fast compare --ma")).split() == ["--maps"]


def test_names_of_the_package_are_found_when_asked_for() -> None:
    for name in repsim_fast.__all__:
        assert getattr(repsim_fast, name) is not None
    assert {*repsim_fast.__all__, "models"} <= {*dir(repsim_fast)}
    with pytest.raises(AttributeError, match="'repsim_fast' has no attribute 'compair'"):
        repsim_fast.compair  # noqa: B018
