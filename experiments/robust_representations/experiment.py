"""The parts of this experiment, for the command."""

from __future__ import annotations

from pathlib import Path

from experiments.lab.experiment import Experiment

from . import strongest, tables
from .claims import CLAIMS
from .presets import PRESETS
from .questions import QUESTIONS, measures
from .robust_lab import RobustLab


def _check(lab: RobustLab) -> None:
    measures.check(lab)
    strongest.check(lab)


EXPERIMENT = Experiment(
    folder=Path(__file__).resolve().parent,
    description="What robust training does to representations.",
    presets=PRESETS,
    lab=RobustLab,
    questions=QUESTIONS,
    claims=CLAIMS,
    check=_check,
    blocks=tables.BLOCKS,
)
