"""The questions: each a function (lab, report) -> findings, under its number."""

from experiments.lab.experiment import Question

from . import (
    accuracy,
    attacks,
    beyond,
    common_corruptions,
    dimensions,
    gradients,
    robust_training,
)
from .common import of_all_alphas, of_network

QUESTIONS = {
    "Q1": Question("accuracy against selectivity", accuracy.run, of_all_alphas, of_network),
    "Q2": Question("corruptions", common_corruptions.run, of_all_alphas,
                   common_corruptions.average),
    "Q3": Question("attacks", attacks.run, of_all_alphas, attacks.attacked),
    "Q4": Question("dimensionality and its change", dimensions.run, of_all_alphas,
                   dimensions.measured),
    "Q5": Question("gradients of units", gradients.run, of_all_alphas,
                   gradients.of_network),
    "Q6": Question("the way back: selectivity of robust networks", robust_training.run,
                   robust_training.recipes, robust_training.of_network),
    "Q7": Question("beyond: similarity of representations", beyond.run, robust_training.recipes),
}  # fmt: skip
