"""Tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned columns under the keys of the first row: text to the left, numbers to the right."""
    columns = list(rows[0])
    cells = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left = [all(isinstance(row[column], str) for row in rows) for column in columns]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if to_left else f"{cell:>{width}}"
            for cell, width, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(f"  {line}" for line in lines)


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is the one value unequal to itself
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
