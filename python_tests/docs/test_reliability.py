"""The page on reliability shows the results file, and the results file shows nothing lost."""

from __future__ import annotations

import json

from docs.update_reliability import DOCS, RESULTS, updated
from python_tests.faults.__main__ import KINDS


def test_the_table_is_that_of_the_results() -> None:
    page = (DOCS / "reliability.md").read_text()
    assert updated(page) == page


def test_nothing_was_lost_of_as_many_as_promised() -> None:
    kinds = json.loads(RESULTS.read_text())
    assert kinds.keys() == KINDS.keys()
    rows = [row for kind in kinds.values() for row in kind["rows"]]
    assert not [row["fault"] for row in rows if row["lost"]]
    tried = {start: 0 for start in ("kill", "changed file")}
    for row in rows:
        for start in tried:
            tried[start] += row["tried"] if row["fault"].startswith(start) else 0
    assert tried["kill"] >= 200
    assert tried["changed file"] >= 50_000
