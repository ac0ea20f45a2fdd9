"""The questions: each a function (lab, report) -> findings, under its number."""

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
    "Q1": ("cross-layer structure", structure.run),
    "Q2": ("benign against adversarial inputs", perturbed.run),
    "Q3": ("robust overfitting", overfitting.run),
    "Q4": ("architecture", architecture.run),
    "Q5": ("training methods and radii", methods.run),
    "Q6": ("threat models", threats.run),
    "Q7": ("convergence of layers", convergence.run),
    "Q8": ("other measures", measures.run),
    "Q9": ("beyond: tests, baselines, the in-place artefact", beyond.run),
}
