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
        p = _p_of(tests.get(index))
        lines.append(f"| {index} | {_text(q1['standard'][index])} | {_text(q1['robust'][index])} | "
                     f"{p} |")  # fmt: skip
    same = q1["same layer"]
    lines.append(
        f"| same layer, seed to seed | {_text(same.get('standard-standard'))} | "
        f"{_text(same.get('robust-robust'))} | |"
    )
    lines.append(f"| same layer, standard to robust | {_text(same['standard-robust'])} | | |")
    return "\n".join(lines) + "\n"


def _p_of(test: dict[str, Any] | None) -> str:
    """None where a network has no such index."""
    known = test and all(test[kind]["value"] is not None for kind in ("standard", "robust"))
    return f"{test['p over seeds']:.2g}" if test and known else ""


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
        "| | standard | robust | another seed alone | by chance |\n|---|---|---|---|---|\n"
        + "".join(f"{row}\n" for row in own)
        + _LEGEND
    )


def _row(folder: Path, text: str, question: str, *cells: Sequence[Place]) -> str:
    found = findings(folder, question)
    shown = [" / ".join(filter(None, (_text(_at(found, p)) for p in places))) for places in cells]
    return f"| {text} | {' | '.join(shown)} | 0 |"


def _at(found: Any, place: Place) -> Any:
    *names, last = place
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return None
    if names[:1] == [_SPREAD] and (one := found.get(last)):  # of one network, not of a difference
        both = {"value": one["value"], "se": one["se"]}
        return {key: None if v is None else 2**0.5 * v for key, v in both.items()}
    return found.get(last)


Place = tuple[str, ...]
"""Keys that lead to a figure among a question's findings."""

_SPREAD = "spread over seeds"


def _of_kinds(index: str) -> tuple[list[Place], ...]:
    s, r = "standard", "robust"
    return [(s, index)], [(r, index)], [(_SPREAD, s, index), (_SPREAD, r, index)]


_LEGEND = """
Each figure ± its standard error. "Another seed alone" is what two networks of one kind that differ
by their seed have (of a pair of networks; standard / robust), or the standard deviation of the
difference of an index of them (of one network). "By chance" is what unrelated features have (CKA
is unbiased), or what is found where there is no effect.
"""
_STREAM, _MADE = "block index, residual stream", "block index, making stage"
_BLOCKS = "Layers of one stage are more alike than layers of two at equal distance"
# Text, question, and where the figures of the three columns are among its findings.
_SUMMARY: tuple[Any, ...] = (
    ("Two layers of a network are this alike (mean CKA)", "Q1", *_of_kinds("mean off-diagonal")),
    ("Layers half a network apart", "Q1", *_of_kinds("long range")),
    (f"{_BLOCKS}, all layers", "Q1", *_of_kinds(_MADE)),
    (f"{_BLOCKS}, residual stream", "Q1", *_of_kinds(_STREAM)),
    (
        "The same layer of a standard and of a robust network", "Q1",
        [("same layer", "standard-robust")], [],
        [("same layer", "standard-standard"), ("same layer", "robust-robust")],
    ),
    (
        "Training makes layers more alike than they begin, by", "Q7",
        [("trained minus untrained", "standard")], [("trained minus untrained", "robust")], [],
    ),
    (
        "An attack moves stage 3 more than stage 1, by", "Q2",
        [("fall with depth", "standard")], [("fall with depth", "robust")], [],
    ),
    (
        "Robust overfitting changes stage 3 more than stage 1, by", "Q3",
        [], [("change", "test", "stage3 minus stage1")],
        [("change", "test, two seeds of question 1 instead", "stage3 minus stage1")],
    ),
    (
        "The end of robust training without overfitting does so by", "Q3",
        [], [("ordinary", "stage3 minus stage1")], [],
    ),
    (
        "Networks against two threat models, same layer", "Q6",
        [], [("between threats",)], [("seed to seed",)],
    ),
    (
        "Each of them and a standard network", "Q6",
        [("with standard",)], [], [],
    ),
)  # fmt: skip

BLOCKS: Mapping[str, Block] = {"structure": structure, "summary": summary}
