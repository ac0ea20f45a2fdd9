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
from .recipes import Recipe
from .report import Report


def _none(lab: Any) -> Sequence[Recipe]:
    return ()


def _nothing(*_: Any) -> None:
    pass


@dataclass(frozen=True)
class Question:
    """A question, and how it is answered.

    Attributes:
        title: In a few words.
        run: (lab, report) -> findings, as claims are judged by.
        recipes: (lab) -> of all the networks that it needs, for several processes to train at the
            same time before; those that are left out are trained when it is answered.
        measure: (lab, recipe), a function of a module; what it measures of one network, which these
            processes do as well. It is on the network's card before the weights can get lost.
    """

    title: str
    run: Callable[[Any, Report], Mapping[str, Any]]
    recipes: Callable[[Any], Sequence[Recipe]] = _none
    measure: Callable[[Any, Any], object] = _nothing


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
