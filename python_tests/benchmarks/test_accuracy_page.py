"""docs/accuracy.md says what the results files say."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accuracy" / "page.py"


def test_page_of_accuracy_is_that_of_the_results_files() -> None:
    script = runpy.run_path(str(SCRIPT))
    assert script["PAGE"].read_text() == script["page"]()
