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

QUESTIONS = {
    "Q1": Question("cross-layer structure", structure.run),
    "Q2": Question("benign against adversarial inputs", perturbed.run),
    "Q3": Question("robust overfitting", overfitting.run),
    "Q4": Question("architecture", architecture.run),
    "Q5": Question("training methods and radii", methods.run),
    "Q6": Question("threat models", threats.run),
    "Q7": Question("convergence of layers", convergence.run),
    "Q8": Question("other measures", measures.run),
    "Q9": Question("beyond: tests, baselines, the in-place artefact", beyond.run),
}
