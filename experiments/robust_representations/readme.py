"""Puts the figures of the results into the README, so that none is copied by hand.

A block begins with ``<!-- NAME PRESET -->`` and ends with ``<!-- end -->``; what is between is
written anew from ``results/PRESET``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BLOCK = re.compile(
    r"(<!-- (run|structure|claims|verdicts) ([\w ,-]+) -->\n).*?(<!-- end -->)", re.S
)

_INDICES = (
    "clean accuracy", "robust accuracy", "mean off-diagonal", "stage1-stage3", "long range",
    "block index", "stage contrast",
)  # fmt: skip


def updated(text: str, results: Path) -> str:
    """The README with all blocks written from a results folder; those without results stay."""

    def block(found: re.Match[str]) -> str:
        begin, name, presets, end = found.groups()
        folders = [results / preset.strip() for preset in presets.split(",")]
        if not all((folder / "run.json").exists() for folder in folders):
            return found.group()
        return f"{begin}{_BLOCKS[name](folders)}{end}"

    return _BLOCK.sub(block, text)


def _run(folders: list[Path]) -> str:
    """Which code ran where, and what it took."""
    record = _read(folders[0] / "run.json")
    answers = record["questions"]
    where = " / ".join(sorted({one["machine"] for one in answers.values()}))
    with_ = " / ".join(sorted({one["versions"] for one in answers.values()}))
    trained = sum(one["networks_trained"] for one in answers.values())
    training = sum(record["networks"].values()) / 60
    answering = sum(one["cpu_seconds"] for one in answers.values()) / 60
    last = max(one["time"] for one in answers.values())
    return (
        f"{', '.join(answers)}: commit {record['commit']}, {last}; {where}; {with_}; "
        f"{len(record['networks'])} networks, whose training takes {training:.1f} minutes; "
        f"{answering:.1f} minutes of CPU time for this run, which trained {trained} of them.\n"
    )


def _structure(folders: list[Path]) -> str:
    """Standard against robust networks, each a mean over seeds."""
    q1, tests = _found(folders[0], "Q1"), {}
    if (folders[0] / "Q9.json").exists():
        tests = _found(folders[0], "Q9")["block structure"]
    seeds = q1["seeds"]
    lines = [
        f"| | standard ({seeds} seeds) | robust ({seeds} seeds) | p over seeds |",
        "|---|---|---|---|",
    ]
    for index in _INDICES:
        p = f"{tests[index]['p over seeds']:.2g}" if index in tests else ""
        lines.append(f"| {index} | {_text(q1['standard'][index])} | {_text(q1['robust'][index])} | "
                     f"{p} |")  # fmt: skip
    same = q1["same layer"]
    lines.append(
        f"| same layer, seed to seed | {_text(same.get('standard-standard'))} | "
        f"{_text(same.get('robust-robust'))} | |"
    )
    lines.append(f"| same layer, standard to robust | {_text(same['standard-robust'])} | | |")
    return "\n".join(lines) + "\n"


def _claims(folders: list[Path]) -> str:
    """Every claim with what one run found."""
    lines = [
        "| claim | source | expected | found | evidence | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in _read(folders[0] / "claims.json"):
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
    tables = [_read(folder / "claims.json") for folder in folders]
    lines += [
        f"| {rows[0]['claim']} | {' | '.join(map(_verdict, rows))} |"
        for rows in zip(*tables, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _verdict(row: dict[str, str]) -> str:
    return "not run" if row["found"].endswith("was not run") else row["verdict"]


_BLOCKS: dict[str, Callable[[list[Path]], str]] = {
    "run": _run, "structure": _structure, "claims": _claims, "verdicts": _verdicts,
}  # fmt: skip


def _text(estimate: dict[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    error = "" if estimate["se"] is None else f" ± {estimate['se']:.3f}"
    return f"{estimate['value']:.3f}{error}"


def _found(folder: Path, question: str) -> dict[str, Any]:
    found: dict[str, Any] = _read(folder / f"{question}.json")["findings"]
    return found


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
