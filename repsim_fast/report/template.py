"""Pages from templates, in which no text becomes code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page"]

_TEMPLATES = Path(__file__).parent / "templates"


def page(template: str, *, scripts: Callable[[str], str], **content: Any) -> str:
    """A page that runs its own scripts only and can reach nothing outside of itself.

    Args:
        template: Name of the template.
        scripts: From the page's script to what the page's policy lets run.
        **content: What the template shows; texts are escaped.

    Raises:
        ImportError: jinja2 is missing.
    """
    from markupsafe import Markup

    script = f"\n{(_TEMPLATES / 'page.js').read_text(encoding='utf-8')}"
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {scripts(script)}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    style = Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))
    # Ours, not escaped: it holds no text of a result.
    return (
        _environment()
        .get_template(template)
        .render(script=Markup(script), style=style, policy=Markup(policy), **content)
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    made.filters["shown"] = _shown
    made.filters["numeric_columns"] = _numeric_columns
    return made


def _numeric_columns(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {c for c in rows[0] if all(_is_number(row.get(c)) for row in rows)}


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _shown(value: Any) -> str:
    if value is None or value != value:  # NaN is the one value unequal to itself
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
