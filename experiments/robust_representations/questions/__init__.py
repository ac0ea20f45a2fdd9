"""The questions: each a function (lab, report) -> findings, under its number."""

from experiments.lab.experiment import Question

from . import (
    architecture,
    beyond,
    convergence,
    measures,
    methods,
    overfitting,
    perturbed,
    structure,
    threats,
)
from .seeds import usual

QUESTIONS = {
    "Q1": Question("cross-layer structure", structure.run, usual, structure.measure),
    "Q2": Question("benign against adversarial inputs", perturbed.run, usual),
    "Q3": Question("robust overfitting", overfitting.run, overfitting.recipes),
    "Q4": Question("architecture", architecture.run, architecture.recipes),
    "Q5": Question("training methods and radii", methods.run, methods.recipes),
    "Q6": Question("threat models", threats.run, threats.recipes),
    "Q7": Question("convergence of layers", convergence.run, usual),
    "Q8": Question("other measures", measures.run, usual),
    "Q9": Question("beyond: tests, baselines, the in-place artefact", beyond.run, usual),
}
