"""`repsim-fast report`: results as a page to explore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import parse_folder

Results = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULT",
        show_default=False,
        help="Files of results, or folders that `repsim-fast compare` wrote; of several, such as "
        "those of several measures, the page shows the one that is chosen. A folder of several "
        "measures stands for all of them.",
    ),
]
Page = Annotated[Path, typer.Option("--out", metavar="FILE", help="The page (HTML).")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="Heading of the page.")]
FiguresFolder = Annotated[
    Path | None,
    typer.Option(
        parser=parse_folder,
        metavar="DIR",
        help="Also draw a heat map (PNG) of each model and pair of models there.",
    ),
]
TablesFolder = Annotated[
    Path | None,
    typer.Option(
        parser=parse_folder,
        metavar="DIR",
        help="Also write each pair of layers as a line of a table (CSV) there.",
    ),
]


def report(
    results: Results,
    out: Page,
    title: Title = None,
    figures: FiguresFolder = None,
    tables: TablesFolder = None,
) -> None:
    """Write results as one page to explore, which needs no network and no other file.

    \b
    Examples:
      repsim-fast report out/compare --out report.html
      repsim-fast report cka/ procrustes/ --title "Two measures" --out report.html
      repsim-fast report zoo/ --figures zoo/figures --tables zoo/tables --out report.html
    """
    from repsim_fast.comparison.result import load
    from repsim_fast.comparison.storage import folders
    from repsim_fast.report import write_figures, write_report, write_table

    from .options import check_out

    check_out(out, ".html")
    paths = [one for path in results for one in (folders(path) if path.is_dir() else [path])]
    loaded = [load(path) for path in paths]
    names = [_name(path) for path in paths]
    headings = names if len(set(names)) == len(names) else [str(path) for path in paths]
    if len(set(headings)) < len(headings):
        raise ValueError(f"RESULT must be different files, got {', '.join(headings)}")
    shown = loaded[0] if len(loaded) == 1 else dict(zip(headings, loaded, strict=True))
    page = write_report(out, shown) if title is None else write_report(out, shown, title=title)
    typer.echo(f"Open {page} ({page.stat().st_size / 1e6:.1f} MB).")
    for number, result in enumerate(loaded):
        inside = "" if len(loaded) == 1 else str(number)
        if figures is not None:
            typer.echo(
                f"{len(write_figures(figures / inside, result))} heat maps in {figures / inside}"
            )
        if tables is not None:
            typer.echo(f"table: {write_table(tables / inside, result)}")


def _name(path: Path) -> str:
    place = path.resolve()
    return place.name if place.is_dir() else place.stem
