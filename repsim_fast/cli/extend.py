"""`repsim-fast extend`: one model more in a comparison of recordings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsim_fast._core.files import check_writable

from .options import Threads
from .run_options import Results
from .shown import as_option, say_where, show
from .threads import choose_threads

if TYPE_CHECKING:
    from repsim_fast.comparison.recording import Recording
    from repsim_fast.comparison.result import SimilarityResult

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


Moved = Annotated[
    list[Path] | None,
    typer.Option(
        "--recordings",
        metavar="DIR",
        help="Folder that has the recordings of RESULT, by the names of their folders; may be "
        "given several times (default: where they were).",
        show_default=False,
    ),
]


def extend(
    result: Known,
    recordings: More,
    out: Results,
    moved: Moved = None,
    threads: Threads = None,
) -> None:
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
    arguments = expand(recordings, "RECORDING")
    opened = [Recording.open(argument) for argument in arguments]
    if result.is_dir():
        known = {folder.name: load_folder(folder) for folder in folders(result)}
    else:
        known = {result.name: SimilarityResult.load(result)}
    check_writable(out)
    for name, recording in zip(short_names(arguments), opened, strict=True):
        for measure, before in known.items():
            known[measure] = _extended(before, recording, name, moved or [])
    typer.echo("drawing heat maps and report")
    page = write_folder(out, known if len(known) > 1 else next(iter(known.values())))
    for extended in known.values():
        show(extended)
    say_where(page, list(known))


def _extended(
    result: SimilarityResult, recording: Recording, name: str, places: Sequence[Path]
) -> SimilarityResult:
    """The result with one more model, in whose errors options are those of the command line."""
    lying, shows = _found(result, places), sys.stderr.isatty()
    try:
        return result.extend(recording, name=name, recordings=lying, progress=shows)
    except FileNotFoundError as error:
        raise FileNotFoundError(as_option(str(error))) from error


def _found(result: SimilarityResult, places: Sequence[Path]) -> dict[str, Path]:
    """Recordings of the result's models in these folders.

    Raises:
        ValueError: A folder that has none of them.
    """
    from repsim_fast.comparison.recording import is_recording

    lay = result.settings.get("recordings", {})
    folders = {
        name: Path(lay[name]).name if name in lay else name.replace("/", "%2F")
        for name in result.models
    }
    found: dict[str, Path] = {}
    for place in places:
        here = {name: place / folder for name, folder in folders.items()}
        if not (there := {name: path for name, path in here.items() if is_recording(path)}):
            raise ValueError(
                f"--recordings: expected recordings of {', '.join(folders.values())} in "
                f"{str(place)!r}, got none of them"
            )
        found |= there
    return found
