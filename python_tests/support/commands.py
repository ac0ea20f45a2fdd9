"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from typer.testing import CliRunner, Result

from repsim_fast.cli import app

Run: TypeAlias = Callable[..., Result]

# A training of a second.
TRAIN = [
    *("train", "--data", "digits", "--model", "resnet-8", "--epochs", "1", "--threads", "1"),
    *("--limit", "60", "--test-limit", "30"),
]


def run_command(*arguments: object) -> Result:
    """`repsim-fast` with these arguments: its exit code and output."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
