"""Puts the figures of the results into a README, so that none is copied by hand.

A block begins with ``<!-- NAME PRESET -->`` (or several presets, with commas) and ends with
``<!-- end -->``; what is between is written anew from ``results/PRESET``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .files import read_json

Block = Callable[[list[Path]], str]
"""Results folders of the presets -> lines."""


def updated(text: str, results: Path, own: Mapping[str, Block]) -> str:
    """The README with all blocks written from a results folder; those without results stay.

    Args:
        own: Blocks of the experiment by name, besides `BLOCKS`.
    """
    blocks = {**BLOCKS, **own}

    def block(found: re.Match[str]) -> str:
        begin, name, presets, end = found.groups()
        folders = [results / preset.strip() for preset in presets.split(",")]
        if not all((folder / "run.json").exists() for folder in folders):
            return found.group()
        return f"{begin}{blocks[name](folders)}{end}"

    names = "|".join(map(re.escape, blocks))
    pattern = rf"(<!-- ({names}) ([\w ,-]+) -->\n).*?(<!-- end -->)"
    return re.sub(pattern, block, text, flags=re.DOTALL)


def findings(folder: Path, question: str) -> dict[str, Any]:
    """What a question found."""
    found: dict[str, Any] = read_json(folder / f"{question}.json")["findings"]
    return found


def _run(folders: list[Path]) -> str:
    """Which code ran where, and what it took."""
    record = read_json(folders[0] / "run.json")
    answers = record["questions"]
    where = " / ".join(sorted({one["machine"] for one in answers.values()}))
    with_ = " / ".join(sorted({one["versions"] for one in answers.values()}))
    trained = sum(one["networks_trained"] for one in answers.values())
    training = sum(record["networks"].values()) / 60
    answering = sum(one["cpu_seconds"] for one in answers.values()) / 60
    last = max(one["time"] for one in answers.values())
    return (
        f"{', '.join(answers)}: commit {record['commit']}, {last}; {where}; {with_}; "
        f"{_elsewhere(answers)}"
        f"{len(record['networks'])} networks, whose training takes {training:.1f} minutes; "
        f"{answering:.1f} minutes of CPU time for this run, which trained {trained} of them.\n"
    )


def _elsewhere(answers: Mapping[str, Any]) -> str:
    """Where networks were trained that were measured already."""
    machines = {place for one in answers.values() for place in one.get("trained_on", ())}
    others = sorted(machines - {one["machine"] for one in answers.values()})
    return f"networks trained on {' / '.join(others)}, too; " if others else ""


def _claims(folders: list[Path]) -> str:
    """Every claim with what one run found."""
    lines = [
        "| claim | source | expected | found | evidence | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in read_json(folders[0] / "claims.json"):
        evidence = row["evidence"]
        if (folders[0] / evidence).exists():
            evidence = f"[{evidence}](results/{folders[0].name}/{evidence})"
        cells = (row["claim"], row["source"], row["expected"], row["found"], evidence)
        lines.append(f"| {' | '.join(cells)} | **{row['verdict']}** |")
    return "\n".join(lines) + "\n"


def _verdicts(folders: list[Path]) -> str:
    """The verdicts of several runs side by side."""
    names = [folder.name for folder in folders]
    linked = " | ".join(f"[{name}](results/{name}/claims.md)" for name in names)
    lines = [f"| claim | {linked} |", "|---|" + "---|" * len(names)]
    tables = [
        {row["claim"]: row for row in read_json(folder / "claims.json")} for folder in folders
    ]
    # In the order of the run that knew most of them.
    for claim in max(tables, key=len):
        verdicts = [_verdict(table.get(claim)) for table in tables]
        lines.append(f"| {claim} | {' | '.join(verdicts)} |")
    return "\n".join(lines) + "\n"


def _verdict(row: dict[str, str] | None) -> str:
    if row is None:
        return "not yet asked"
    return "not run" if row["found"].endswith("was not run") else row["verdict"]


BLOCKS: Mapping[str, Block] = {"run": _run, "claims": _claims, "verdicts": _verdicts}
