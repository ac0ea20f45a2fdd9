"""Building blocks of a self-contained HTML page: no script, no other file, light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape as escape
from typing import Any

_STYLE = """
:root {
  color-scheme: light dark;
  --text: #1f2328; --soft: #59636e; --line: #d0d7de; --page: #ffffff; --card: #f6f8fa;
  --accent: #b63679;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e6edf3; --soft: #9198a1; --line: #3d444d; --page: #0d1117; --card: #151b23;
    --accent: #fb8761;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 {
  font-size: 1.35rem; margin: 2.8rem 0 .8rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p, li { max-width: 46rem; }
.lead { font-size: 1.1rem; }
.soft, figcaption { color: var(--soft); }
figcaption { font-size: .9rem; max-width: 46rem; }
figure { margin: 1rem 0; }
.scroll { overflow-x: auto; }
img { max-width: 100%; min-width: 34rem; height: auto; display: block; }
.cards { display: flex; flex-wrap: wrap; gap: .9rem; margin: 1.6rem 0; padding: 0; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .8rem 1.1rem; flex: 1 1 11rem; max-width: 20rem;
}
.card b { display: block; font-size: 1.9rem; line-height: 1.2; color: var(--accent); }
.card span { display: block; font-size: .88rem; color: var(--soft); }
.card .name { color: var(--text); font-weight: 600; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
td.number, th.number { text-align: right; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
.note { border-left: 4px solid var(--accent); padding: .3rem 0 .3rem 1rem; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
@media print { details { display: block; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of plain text, with the class ``kind``."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Boxes with a name, a large figure and what the figure is."""
    boxes = "".join(
        f'<div class="card"><span class="name">{escape(name)}</span><b>{escape(figure)}</b>'
        f"<span>{escape(meaning)}</span></div>"
        for name, figure, meaning in entries
    )
    return f'<div class="cards">{boxes}</div>'


def picture(light: bytes, dark: bytes, *, alt: str, caption: str) -> str:
    """A PNG in two versions, of which the browser shows the one that fits the page."""

    def address(png: bytes) -> str:
        return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

    return (
        '<figure><div class="scroll"><picture>'
        f'<source srcset="{address(dark)}" media="(prefers-color-scheme: dark)">'
        f'<img src="{address(light)}" alt="{escape(alt)}"></picture></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the keys of the first row as headings; numbers to the right."""
    if not rows:
        return ""
    columns = list(rows[0])
    numeric = {c for c in columns if all(_is_number(row.get(c)) for row in rows)}

    def cell(tag: str, column: str, value: Any) -> str:
        kind = ' class="number"' if column in numeric else ""
        return f"<{tag}{kind}>{escape(_text(value))}</{tag}>"

    head = "".join(cell("th", column, column) for column in columns)
    body = "".join(
        f"<tr>{''.join(cell('td', column, row.get(column)) for column in columns)}</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        "</div>"
    )


def pairs(entries: Mapping[str, Any]) -> str:
    """A table of names and values; a mapping as a value is spread over lines."""
    rows = "".join(
        f"<tr><th>{escape(str(name))}</th><td>{_lines(value)}</td></tr>\n"
        for name, value in entries.items()
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'


def details(summary: str, content: str) -> str:
    """Content that is folded away until asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _lines(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(k))}: {escape(_text(v))}" for k, v in value.items())
    return escape(_text(value))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is the one value unequal to itself
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
