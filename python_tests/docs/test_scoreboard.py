"""The scoreboard shows the experiments' results files, all of them."""

from __future__ import annotations

import json

from docs.update_scoreboard import DOCS, NAMES, PAGE, VERDICTS, page

EXPERIMENTS = DOCS.parent / "experiments"


def test_the_page_is_that_of_the_results() -> None:
    assert PAGE.read_text() == page(), "python -m docs.update_scoreboard"


def test_every_experiment_and_every_claim_is_on_it() -> None:
    found = {path.parent.name for path in EXPERIMENTS.glob("*/experiment.py")} - {"lab"}
    assert set(NAMES) == found
    files = list(EXPERIMENTS.glob("*/results/*/claims.json"))
    rows = [row for file in files for row in json.loads(file.read_text())]
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
    lines = page().splitlines()
    assert sum(line.endswith("** |") for line in lines) == len(rows)
    for row in rows:
        shown = row["found"].replace("|", "/")
        assert any(shown in line and f"**{row['verdict']}**" in line for line in lines), row
