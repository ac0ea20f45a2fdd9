"""Puts the table of the fault suite's results file into docs/reliability.md."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from python_tests.faults.table import Row, markdown

START, END = "<!-- faults: docs/update_reliability.py -->\n", "<!-- end -->"
DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "python_tests" / "faults" / "results.json"


def updated(page: str) -> str:
    """The page with the table between its markers."""
    kinds = json.loads(RESULTS.read_text()).values()
    rows = [
        Row(**{field.name: row[field.name] for field in fields(Row)})
        for kind in kinds
        for row in kind["rows"]
    ]
    runs = {", ".join(f"{name} {v}" for name, v in kind["versions"].items()) for kind in kinds}
    before, rest = page.split(START)
    source = f"\nBy {'; by '.join(sorted(runs))}.\n"
    return before + START + markdown(rows) + source + END + rest.split(END)[1]


if __name__ == "__main__":
    path = DOCS / "reliability.md"
    path.write_text(updated(path.read_text()))
