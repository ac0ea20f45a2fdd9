"""`repsim-fast extend`: one model more in a comparison of recordings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from repsim_fast._core.files import check_writable

from .options import Threads
from .run_options import Results
from .shown import say_where, show
from .threads import choose_threads

Known = Annotated[
    Path,
    typer.Argument(
        metavar="RESULT",
        show_default=False,
        help="A result of recordings: the folder that `repsim-fast compare` wrote, of "
        "one measure or several, or the file of one.",
    ),
]
More = Annotated[
    list[str],
    typer.Argument(
        metavar="RECORDING",
        show_default=False,
        help="Recordings of further models, folders of them or patterns.",
    ),
]


def extend(result: Known, recordings: More, out: Results, threads: Threads = None) -> None:
    """Add models to a comparison of recordings, without running those that are there.

    \b
    Example:
      repsim-fast record new.safetensors --data digits --out recordings
      repsim-fast extend out/compare recordings/new --out out/extended
    """
    from repsim_fast.comparison.recording import Recording
    from repsim_fast.comparison.result import SimilarityResult
    from repsim_fast.comparison.storage import folders
    from repsim_fast.report import load_folder
    from repsim_fast.report.folder import write_folder

    from .models import short_names
    from .zoo import expand

    choose_threads(threads)
    arguments = expand(recordings)
    opened = [Recording.open(argument) for argument in arguments]
    if result.is_dir():
        known = {folder.name: load_folder(folder) for folder in folders(result)}
    else:
        known = {result.name: SimilarityResult.load(result)}
    check_writable(out)
    for name, recording in zip(short_names(arguments), opened, strict=True):
        for measure, before in known.items():
            known[measure] = before.extend(recording, name=name, progress=sys.stderr.isatty())
    typer.echo("drawing heat maps and report")
    page = write_folder(out, known if len(known) > 1 else next(iter(known.values())))
    for extended in known.values():
        show(extended)
    say_where(page, list(known))
