"""The parts of this experiment, for the command."""

from __future__ import annotations

from pathlib import Path

from experiments.lab.experiment import Experiment

from . import tables
from .claims import CLAIMS
from .compact_lab import CompactLab, check
from .presets import PRESETS
from .questions import QUESTIONS

EXPERIMENT = Experiment(
    folder=Path(__file__).resolve().parent,
    description="Compact and robust networks: pre-training, pruning, fine-tuning.",
    presets=PRESETS,
    lab=CompactLab,
    questions=QUESTIONS,
    claims=CLAIMS,
    check=check,
    blocks=tables.BLOCKS,
)
