"""The questions: each a function (lab, report) -> findings, under its number."""

from experiments.lab.experiment import Question

from . import filters, gap, objectives, representations, rounds, sparsities
from .common import measure

QUESTIONS = {
    "Q1": Question("what is kept at each sparsity", sparsities.run, sparsities.recipes,
                   measure),
    "Q2": Question("other objectives before and after", objectives.run, objectives.recipes,
                   measure),
    "Q3": Question("learned scores against magnitude", gap.run, sparsities.recipes,
                   measure),
    "Q4": Question("weights against filters", filters.run, filters.recipes, measure),
    "Q5": Question("one shot against iterative", rounds.run, rounds.recipes, measure),
    "Q6": Question("representations of pruned networks", representations.run,
                   representations.recipes, representations.units_of),
}  # fmt: skip
