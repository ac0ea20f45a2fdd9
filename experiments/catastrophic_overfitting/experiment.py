"""The parts of this experiment, for the command."""

from __future__ import annotations

from pathlib import Path

from experiments.lab.experiment import Experiment

from . import tables
from .claims import CLAIMS
from .overfitting_lab import OverfittingLab
from .presets import PRESETS
from .questions import QUESTIONS

EXPERIMENT = Experiment(
    folder=Path(__file__).resolve().parent,
    description="Catastrophic overfitting induced by features that are not robust.",
    presets=PRESETS,
    lab=OverfittingLab,
    questions=QUESTIONS,
    claims=CLAIMS,
    blocks=tables.BLOCKS,
)
