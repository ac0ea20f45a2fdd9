"""Tables of this experiment for its README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.lab.readme import Block, findings

_INDICES = (
    "clean accuracy", "robust accuracy", "mean off-diagonal", "stage1-stage3", "long range",
    "block index", "block index, making stage", "block index, residual stream", "stage contrast",
)  # fmt: skip


def structure(folders: list[Path]) -> str:
    """Standard against robust networks, each a mean over seeds."""
    q1, tests = findings(folders[0], "Q1"), {}
    if (folders[0] / "Q9.json").exists():
        tests = findings(folders[0], "Q9")["block structure"]
    seeds = q1["seeds"]
    lines = [
        f"| | standard ({seeds} seeds) | robust ({seeds} seeds) | p over seeds |",
        "|---|---|---|---|",
    ]
    for index in [name for name in _INDICES if name in q1["standard"]]:
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


def _text(estimate: dict[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    error = "" if estimate["se"] is None else f" ± {estimate['se']:.3f}"
    return f"{estimate['value']:.3f}{error}"


def summary(folders: list[Path]) -> str:
    """One page: a picture, and each finding with its error, what a seed does, and chance."""
    folder = folders[0]
    own = [_row(folder, *row) for row in _SUMMARY if (folder / f"{row[1]}.json").exists()]
    return (
        f"![CKA of what blocks hand on](results/{folder.name}/Q1_stream.png)\n\n"
        "| | standard | robust | another seed alone | chance |\n|---|---|---|---|---|\n"
        + "".join(f"{row}\n" for row in own)
        + '\nEach figure ± its standard error; "another seed alone" is what two networks of one '
        "kind that differ by\ntheir seed have (of a pair of networks), or by how much an index of "
        "them differs (of one). Unrelated\nfeatures have 0: CKA is unbiased.\n"
    )


def _row(folder: Path, text: str, question: str, *places: Sequence[str | None]) -> str:
    found = findings(folder, question)
    cells = [_text(_at(found, place)) for place in places]
    return f"| {text} | {' | '.join(cells)} | 0 |"


def _at(found: Any, place: Sequence[str | None]) -> Any:
    for name in place:
        found = found.get(name) if isinstance(found, dict) else None
    return found if place else None


def _of_kinds(index: str) -> tuple[Sequence[str], ...]:
    return ("standard", index), ("robust", index), ("spread over seeds", "standard", index)


_STREAM = "block index, residual stream"
# Text, question, and where the figures of the three columns are among its findings.
_SUMMARY: tuple[Any, ...] = (
    ("Two layers of a network are this alike (mean CKA)", "Q1", *_of_kinds("mean off-diagonal")),
    ("Layers half a network apart", "Q1", *_of_kinds("long range")),
    ("Layers of one stage, more than of two at equal distance", "Q1", *_of_kinds(_STREAM)),
    (
        "The same layer of a standard and of a robust network", "Q1",
        ("same layer", "standard-robust"), (), ("same layer", "standard-standard"),
    ),
    (
        "Training makes layers more alike than they begin, by", "Q7",
        ("trained minus untrained", "standard"), ("trained minus untrained", "robust"), (),
    ),
    (
        "An attack moves stage 3 more than stage 1, by", "Q2",
        ("fall with depth", "standard"), ("fall with depth", "robust"), (),
    ),
    (
        "Robust overfitting changes stage 3 more than stage 1, by", "Q3",
        (), ("change", "test", "stage3 minus stage1"),
        ("change", "test, two seeds of question 1 instead", "stage3 minus stage1"),
    ),
    (
        "Networks against two threat models, same layer", "Q6",
        (), ("between threats",), ("seed to seed",),
    ),
)  # fmt: skip

BLOCKS: Mapping[str, Block] = {"structure": structure, "summary": summary}
