"""The parts of this experiment, for the command."""

from __future__ import annotations

from pathlib import Path

from experiments.lab.experiment import Experiment

from . import tables
from .claims import CLAIMS
from .presets import PRESETS
from .questions import QUESTIONS
from .selectivity_lab import SelectivityLab, check

EXPERIMENT = Experiment(
    folder=Path(__file__).resolve().parent,
    description="Class selectivity, dimensionality and two kinds of robustness.",
    presets=PRESETS,
    lab=SelectivityLab,
    questions=QUESTIONS,
    claims=CLAIMS,
    check=check,
    blocks=tables.BLOCKS,
)
