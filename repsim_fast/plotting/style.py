"""What all figures share: themes, display in notebooks, files. Nothing global is touched."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repsim_fast._core.checks import check_choice
from repsim_fast._core.files import replacing

__all__ = [
    "Colours",
    "NotebookFigure",
    "Theme",
    "colours_of",
    "finish",
    "plain",
    "plain_names",
    "style_ticks",
    "to_html",
    "to_png",
]

Theme = Literal["light", "dark"]


class Colours(NamedTuple):
    """Colours of a theme; ``unknown`` is that of cells without a value."""

    text: str
    faint: str
    background: str
    unknown: str


_THEMES = {
    "light": Colours("#1f2328", "#d0d7de", "#ffffff", "#c4cad1"),
    "dark": Colours("#e6edf3", "#3d444d", "#0d1117", "#565d66"),
}


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        return to_png(self)


def colours_of(theme: Theme) -> Colours:
    """Colours of a theme.

    Raises:
        ValueError: There is no such theme.
    """
    check_choice("theme", theme, _THEMES)
    return _THEMES[theme]


# Labels of this many letters still leave room for what they are labels of.
_LONGEST = 60


def plain(text: str) -> str:
    """Text that matplotlib takes for no formula, on one line, long ones without their middle."""
    return _cut(_line(text)).replace("$", r"\$")


def plain_names(names: Sequence[str]) -> list[str]:
    """The names, each as `plain`, but different ones never alike: long ones that differ in their
    middle alone keep that, and are counted where they still look the same."""
    lines = [_line(name) for name in names]
    shown = {line: _cut(line) for line in lines}
    for alike in _alike(shown):
        letters = enumerate(zip(*alike, strict=False))
        differ = next((i for i, those in letters if len({*those}) > 1), 0)
        start = max(0, differ - _LONGEST // 4)
        shown.update({line: "…" + _cut(line[start:]) for line in alike})
    for alike in _alike(shown):
        shown.update({line: f"{shown[line]} ({i})" for i, line in enumerate(alike, 1)})
    return [shown[line].replace("$", r"\$") for line in lines]


def _alike(shown: Mapping[str, str]) -> list[list[str]]:
    """Different lines that are shown as the same."""
    groups: dict[str, list[str]] = {}
    for line, text in shown.items():
        groups.setdefault(text, []).append(line)
    return [lines for lines in groups.values() if len(lines) > 1]


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in str(text))


def _cut(line: str) -> str:
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST // 2]}…{line[-_LONGEST // 2 + 1 :]}"


def style_ticks(ax: Axes, colours: Colours, **options: Any) -> None:
    """Ticks and their labels in the colours of the theme."""
    ax.tick_params(color=colours.faint, labelcolor=colours.text, **options)


def to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def to_html(text: str, figure: Figure) -> str:
    """What a notebook shows: a text as it is, long lines wrapped, and a picture below."""
    picture = base64.b64encode(to_png(figure, dpi=100)).decode("ascii")
    return (
        f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre>'
        f'<img src="data:image/png;base64,{picture}" alt="heat map" style="max-width: 100%">'
    )


def finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, also written to a file if there is a path."""
    if path is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150, facecolor=figure.get_facecolor())
    return figure
