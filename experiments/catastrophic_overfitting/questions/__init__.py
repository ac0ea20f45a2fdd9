"""The questions: each a function (lab, report) -> findings, under its number."""

from experiments.lab.experiment import Question

from . import cures, features, geometry, interventions, phase, similarity

QUESTIONS = {
    "Q1": Question("phase diagram", phase.run, phase.recipes),
    "Q2": Question("cures", cures.run, cures.recipes),
    "Q3": Question("what the network uses", features.run, features.recipes),
    "Q4": Question("alignment and curvature", geometry.run, geometry.recipes),
    "Q5": Question("without the interplay", interventions.run, interventions.recipes),
    "Q6": Question("representations across the collapse", similarity.run, similarity.recipes),
}
