"""What an experiment is: questions to networks of a preset, and claims that answers decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .claims import Claim
from .lab import Lab
from .presets import Preset
from .readme import Block
from .report import Report


@dataclass(frozen=True)
class Question:
    """A question, and how it is answered.

    Attributes:
        title: In a few words.
        run: (lab, report) -> findings, as claims are judged by.
    """

    title: str
    run: Callable[[Any, Report], Mapping[str, Any]]


def _nothing(lab: Any) -> None:
    pass


@dataclass(frozen=True)
class Experiment:
    """One folder, one question of a paper, one command.

    Attributes:
        folder: Where the code, README.md and results/ are.
        description: What it is about, in a sentence.
        presets: By name; the first one is the default.
        lab: Class of its lab.
        questions: By number.
        claims: Judged after each question.
        check: Raises ValueError, before hours are spent, if the lab cannot answer a question.
        blocks: Tables of its own for the README.
    """

    folder: Path
    description: str
    presets: Mapping[str, Preset]
    lab: Callable[..., Lab[Any, Any]]
    questions: Mapping[str, Question]
    claims: Sequence[Claim]
    check: Callable[[Any], None] = _nothing
    blocks: Mapping[str, Block] = field(default_factory=dict)
