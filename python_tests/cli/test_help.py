from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields

import pytest

import repsim_fast
from python_tests.support.commands import Run
from repsim_fast import models
from repsim_fast._core import names
from repsim_fast.cli.app import COMMANDS
from repsim_fast.cli.attack_setup import ATTACKS
from repsim_fast.cli.train_options import CourseOptions, MethodOptions, OptimisationOptions
from repsim_fast.similarity import measure_names
from repsim_fast.training import Optimisation, methods, recipes, schedules, train


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


# What takes a noticeable part of the time in which help should be there.
SLOW = dict.fromkeys(("torch", "numpy", "scipy", "tqdm"))
FORBIDDEN = f"import sys; sys.modules.update({SLOW})"
# Each command's help, then what may follow "--" after it, in one process.
ALL_COMMANDS = """
import os
from repsim_fast.cli.app import COMMANDS, app

def answer(*arguments):
    try:
        app(arguments, prog_name="repsim-fast")
    except SystemExit as end:
        print(f"[exit {end.code}]")

for command in COMMANDS:
    print(f"[help of {command}]")
    answer(command, "--help")
os.environ.update(_REPSIM_FAST_COMPLETE="complete_bash", COMP_CWORD="2")
for command in COMMANDS:
    print(f"[completion of {command}]")
    os.environ["COMP_WORDS"] = f"repsim-fast {command} --"
    answer()
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What the command answers without torch, NumPy and SciPy, by the heading."""
    done = subprocess.run(
        [sys.executable, "-c", f"{FORBIDDEN}\n{ALL_COMMANDS}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^\[((?:help|completion) of \w+)\]\n", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_completion_do_without_torch(answers: dict[str, str], command: str) -> None:
    text, completion = answers[f"help of {command}"], answers[f"completion of {command}"]
    assert text.startswith(f"Usage: repsim-fast {command}"), text
    assert text.endswith("[exit 0]\n")
    assert completion.endswith("[exit 0]\n")
    offered = {*completion.split()[:-2]}
    in_help = {*re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, flags=re.MULTILINE)}
    assert in_help <= offered | {"--help"}
    assert command == "info" or len(in_help) > 1


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("compare", measure_names()),
        ("attack", ATTACKS),
        ("certify", ["smoothing", "ibp", "crown-ibp", "crown"]),
        ("prune", ["magnitude", "filters"]),
        ("prune", ["layer", "global"]),
        ("train", models.available()),
        ("train", methods.available()),
        ("train", recipes.available()),
        ("train", schedules.available()),
        ("train", names.OPTIMIZERS),
        ("train", names.FROZEN_PARTS),
        ("train", ATTACKS),
    ],
)
def test_help_lists_what_may_be_chosen(
    answers: dict[str, str], command: str, choices: Iterable[str]
) -> None:
    # Lines break after hyphens, too.
    text = re.sub(r"\s", "", answers[f"help of {command}"])
    assert any(between.join(choices) in text for between in ",|")


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("compare", "[default: cka]"),
        ("attack", "[default: apgd]"),
        ("certify", "[default: 10000; x>=1]"),
        ("train", "[default: 0.999]"),
        ("train", "[default: cosine]"),
        ("record", "[default: grams]"),
    ],
)
def test_help_shows_defaults(answers: dict[str, str], command: str, default: str) -> None:
    assert default in " ".join(answers[f"help of {command}"].split())


@pytest.mark.parametrize(
    ("arguments", "environment", "shown"),
    [
        (["--help"], {}, "Compare networks layer by layer."),
        (["--version"], {}, "(torch "),
        (["comapre"], {}, "'compare'"),
        (["train", "--eps", "wide"], {}, "expected a number above 0 or a fraction"),
        (["train", "--attack-steps", "1..2@3"], {}, "begin and end must be shares"),
        ([], completing("repsim-fast com"), "compare"),
        ([], completing("repsim-fast train --eps 0..0.1@0.5 --mix-"), "--mix-share"),
    ],
    ids=[
        *("help", "version", "typing error", "radius", "ramp", "completion"),
        "completion after a ramp",
    ],
)
def test_what_computes_nothing_does_without_torch(
    arguments: list[str], environment: dict[str, str], shown: str
) -> None:
    assert shown in said(arguments, environment, FORBIDDEN)


def test_options_are_completed() -> None:
    assert said([], completing("repsim-fast compare --min")).split() == ["--minus-chance"]


def test_defaults_of_train_are_those_of_python() -> None:
    """The command's, which are written again so that its help needs no torch."""
    python = {f.name: f.default for f in fields(Optimisation)}
    python |= {p.name: p.default for p in inspect.signature(train).parameters.values()}
    groups = (CourseOptions, OptimisationOptions, MethodOptions)
    of_command = {f.name: f.default for group in groups for f in fields(group)}
    both = python.keys() & of_command.keys()
    assert {"momentum", "beta2", "rho", "weight_decay", "epochs", "lr", "method"} <= both
    assert {n: of_command[n] for n in both} == {n: python[n] for n in both}


def test_names_of_the_package_are_found_when_asked_for() -> None:
    for name in repsim_fast.__all__:
        assert getattr(repsim_fast, name) is not None
    assert {*repsim_fast.__all__, "models"} <= {*dir(repsim_fast)}
    with pytest.raises(AttributeError, match="'repsim_fast' has no attribute 'compair'"):
        repsim_fast.compair  # noqa: B018
