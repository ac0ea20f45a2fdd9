"""How errors, warnings and Ctrl-C reach the user: a line and an exit code, no traceback."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from repsim_fast._core.signals import Terminated, as_interrupts

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, what shells use
# Wrong options and arguments end with typer's own 2.

# What the package raises for bad input, a full disk, a missing device or package. AssertionError,
# because torchvision's networks check the size of their images by it.
_EXPLAINED = (ValueError, TypeError, OSError, ImportError, RuntimeError, AssertionError)
# A network that fails on the first images is likely to want another size.
_OF_IMAGES = re.compile(r"failed in batch 0 on inputs \(\d+, \d+, \d+, \d+\)")
SIZE_HINT = " (--size N brings images to the size that a network was made for)"
_TOO_LARGE = (MemoryError, OverflowError)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a message that says what is left of the work and how to go on."""


@contextlib.contextmanager
def reported(*, debug: bool) -> Iterator[None]:
    """Turn exceptions into a line on stderr and an exit code, unless ``debug`` wants tracebacks."""
    with warnings.catch_warnings(), as_interrupts():
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt as interrupt:
            if debug:
                raise
            what = str(interrupt) if isinstance(interrupt, Interrupted) else "interrupted"
            typer.echo(f"\n{what}", err=True)
            raise typer.Exit(_code(interrupt)) from None
        except Exception as error:
            # Exit, Abort and usage errors are typer's to handle, a closed pipe is no fault.
            typers_own = isinstance(error, typer.Abort) or hasattr(error, "exit_code")
            if debug or typers_own or isinstance(error, BrokenPipeError):
                raise
            typer.echo(f"error{_of_process()}: {_explain(error)}", err=True)
            raise typer.Exit(FAILED) from None


def _code(error: BaseException | None) -> int:
    """128 + the signal's number, as shells have it."""
    while error is not None:
        if isinstance(error, Terminated):
            return 128 + error.number
        error = error.__cause__ or error.__context__
    return INTERRUPTED


def _explain(error: Exception) -> str:
    text = str(error).strip()
    # Where torch has not been imported, it has raised nothing.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"{text.splitlines()[0]} (a smaller --batch-size, where the command has it, needs less)"
        )
    if isinstance(error, _TOO_LARGE):
        return f"a number is too large for this machine's memory ({text or 'no more to be had'})"
    if isinstance(error, _EXPLAINED) and text:
        # torch appends pages of advice to its RuntimeErrors; our messages may list what there is.
        hint = SIZE_HINT if _OF_IMAGES.search(text) else ""
        return text.splitlines()[0] + hint if isinstance(error, RuntimeError) else text
    return (
        f"unexpected {type(error).__name__}: {text or 'no message'}; "
        "`repsim-fast --debug COMMAND ...` shows where"
    )


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    if is_first():  # all that torchrun starts have the same ones
        typer.echo(f"warning: {message}", err=True)


def is_first() -> bool:
    """Whether torchrun, if it started this process, started it as the first; without torch."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def _of_process() -> str:
    """Which of those that torchrun started this process is; nothing where it is alone."""
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE", "1")
    return "" if rank is None or size == "1" else f" in process {rank} of {size}"
