"""The questions: each a function (lab, report) -> findings, under its number."""

from experiments.lab.experiment import Question

from ..overfitting_lab import OverfittingLab
from . import along, cures, features, geometry, interventions, phase, similarity

QUESTIONS = {
    "Q1": Question("phase diagram", phase.run, phase.recipes, OverfittingLab.scores),
    "Q2": Question("cures", cures.run, cures.recipes, OverfittingLab.scores),
    "Q3": Question("what the network uses", features.run, features.recipes,
                   along.scores_along),
    "Q4": Question("alignment and curvature", geometry.run, geometry.recipes,
                   geometry.geometry_along),
    "Q5": Question("without the interplay", interventions.run, interventions.recipes,
                   OverfittingLab.scores),
    "Q6": Question("representations across the collapse", similarity.run, similarity.recipes),
}  # fmt: skip
