"""What `repsim-fast train` writes beside its checkpoint, and how it goes on from there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import typer

from repsim_fast import models
from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast._core.processes import is_first
from repsim_fast.training.checkpoints import RESUME, mark

from .errors import Interrupted
from .options import check_out

LOG = "log.jsonl"
BEFORE_COLLAPSE = "before-collapse.safetensors"
MARK = "training_state"
"""Of the checkpoint's header: which training's state it ended."""


@contextlib.contextmanager
def written_alone(out: Path, resume: bool | None) -> Iterator[Path]:
    """The folder beside the checkpoint, writable, of no other unfinished training, and locked.

    Raises:
        OSError: A place cannot be written to, or another run writes there now.
        ValueError: An unfinished training would be overwritten, or no name of a checkpoint.
    """
    check_out(out, ".safetensors")
    folder = check_writable(out.with_suffix(".training"))
    with only_writer(out) if is_first() else contextlib.nullcontext():
        if is_first():
            _check_begin(out, folder, resume)
        yield folder


def _check_begin(out: Path, folder: Path, resume: bool | None) -> None:
    """Go on or start over as asked, and neither unasked; what an earlier training left stays until
    the trainer, which has checked all that it was given, begins.

    Raises:
        ValueError: There is the state of a training that has not come to its checkpoint.
    """
    state = folder / RESUME
    there = state.exists()
    if there and resume is None and not _is_of(out, state):
        raise ValueError(
            f"{folder} has an interrupted training: --resume goes on with it, --no-resume starts "
            "over"
        )
    if resume and not there:
        typer.echo(f"nothing to resume in {folder}: starting from the beginning")


def _is_of(out: Path, state: Path) -> bool:
    """Whether the checkpoint is what the training of this state ended in."""
    try:
        return out.exists() and models.checkpoint_header(out).get(MARK) == mark(state)
    except ValueError:  # neither is worth less for being damaged
        return False


@contextlib.contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Ctrl-C says how to go on, in words of the command line rather than the trainer's."""
    trainer = logging.getLogger("repsim_fast.training")
    level = trainer.level
    trainer.setLevel(logging.ERROR)
    try:
        yield
    except KeyboardInterrupt:
        if (out.with_suffix(".training") / RESUME).exists():
            raise Interrupted(
                "interrupted; the same command with --resume goes on after the last whole epoch"
            ) from None
        raise Interrupted("interrupted in the first epoch: nothing is kept") from None
    finally:
        trainer.setLevel(level)
