"""Writes docs/scoreboard.md: what the experiments' results files say of the papers' claims."""

from __future__ import annotations

import json
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.lab.experiment import Experiment

DOCS = Path(__file__).parent
PAGE = DOCS / "scoreboard.md"
NAMES = (
    "robust_representations",
    "compact_robust",
    "class_selectivity",
    "catastrophic_overfitting",
)
VERDICTS = ("holds", "does not", "not testable at this scale")
HEAD = """\
# The papers' scoreboard

What four papers claim, and what their experiments found here. Every claim has its threshold in the
code, stated before the run that judges it; verdicts are computed from the numbers. *Not testable at
this scale*: the networks of a preset did not meet what the claim supposes. A verdict belongs to a
preset: small ones show that all parts run, and what digits say is no word on the paper. Claims that
the code has gained since a run are listed as not judged by it. Made from the results files by
`python -m docs.update_scoreboard`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "\n".join(_summary()), ""]
    parts += [part for name in NAMES for part in _section(name)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _experiment(name: str) -> Experiment:
    found: Experiment = import_module(f"experiments.{name}.experiment").EXPERIMENT
    return found


def _results(name: str) -> dict[str, Path]:
    """Folders of results by preset, in the order of the presets."""
    experiment = _experiment(name)
    folders = {
        path.parent.name: path.parent for path in experiment.folder.glob("results/*/run.json")
    }
    return {preset: folders[preset] for preset in experiment.presets if preset in folders}


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _summary() -> list[str]:
    lines = [f"| experiment | preset | {' | '.join(VERDICTS)} |", "|---|---|---|---|---|"]
    for name in NAMES:
        for preset, folder in _results(name).items():
            counts = Counter(row["verdict"] for row in _read(folder / "claims.json"))
            numbers = " | ".join(str(counts[verdict]) for verdict in VERDICTS)
            lines.append(f"| [{name}](#{name}) | {preset} | {numbers} |")
        missing = [preset for preset in _experiment(name).presets if preset not in _results(name)]
        lines.append(f"| {name} | {', '.join(missing)} | not run | | |")
    return lines


def _section(name: str) -> list[str]:
    experiment = _experiment(name)
    lines = [f"## {name}", ""]
    lines += [
        f"{experiment.description} [Questions, presets, reading](../experiments/{name}/README.md).",
        "",
    ]
    for preset, folder in _results(name).items():
        run = _read(folder / "run.json")
        machines = sorted({question["machine"] for question in run["questions"].values()})
        days = sorted(question["time"][:10] for question in run["questions"].values())
        settings = run["preset"]
        lines += [
            f"### {name}: {preset}",
            "",
            f"{settings['architecture']} on {settings['dataset']}, {len(settings['seeds'])} seeds; "
            f"{days[-1]}, commit {run['commit']}; {'; '.join(machines)}.",
            "",
        ]
        lines += [
            *_picture(folder),
            "| claim | source | expected | found | verdict |",
            "|---|---|---|---|---|",
        ]
        for row in _read(folder / "claims.json"):
            cells = (row[key].replace("|", "/") for key in ("claim", "source", "expected", "found"))
            lines.append(f"| {' | '.join(cells)} | **{row['verdict']}** |")
        judged = {(row["claim"], row["expected"]) for row in _read(folder / "claims.json")}
        for claim in experiment.claims:
            if (claim.text, claim.expected) not in judged:
                lines.append(f"| {claim.text} | {claim.source} | {claim.expected} | | not judged |")
        lines.append("")
    return lines


def _picture(folder: Path) -> list[str]:
    """The first picture of the first question that has one."""
    pictures = sorted(folder.glob("Q*.png"))
    if not pictures:
        return []
    path = pictures[0].relative_to(DOCS.parent)
    return [f"![{pictures[0].stem}](../{path})", ""]


if __name__ == "__main__":
    PAGE.write_text(page())
