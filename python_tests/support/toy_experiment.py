"""An experiment of two questions on sixty digits, for tests of what all experiments share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from experiments.lab import presets, recipes
from experiments.lab.claims import Claim, Judged, NotTestable, clear, in_words
from experiments.lab.comparisons import LayerRule
from experiments.lab.datasets import DataSet
from experiments.lab.experiment import Experiment, Question
from experiments.lab.lab import Lab, View
from experiments.lab.recipes import Training, usual_training
from experiments.lab.report import Report
from experiments.lab.threats import Threat, pgd
from repsim_fast.analysis.grids import mean_by_distance, mean_off_diagonal
from repsim_fast.training import Evaluation, methods


@dataclass(frozen=True, kw_only=True)
class Preset(presets.Preset):
    eps: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Recipe(recipes.Recipe):
    method: str = "standard"

    @property
    def kind(self) -> str:
        return self.method


class ToyLab(Lab[Recipe, Preset]):
    def threats_of(self, dataset: DataSet) -> Mapping[str, Threat]:
        return {"linf": pgd("linf", self.preset.eps, steps=(1, 2), step_sizes=(0.1, 0.05))}

    @property
    def layers(self) -> LayerRule:
        return lambda name, module: isinstance(module, (nn.Conv2d, nn.Linear))

    def training(self, recipe: Recipe) -> Training:
        asked = usual_training(
            recipe,
            self.train_data,
            evaluation=Evaluation(self.test_data, self.threats["linf"].build()),
            method=methods.build(
                recipe.method, **({} if recipe.method == "standard" else {"eps": self.preset.eps})
            ),
        )
        return dataclasses.replace(asked, on_epoch=lambda model, record: {"twice": 2 * record.loss})

    def recipe(self, **changes: Any) -> Recipe:
        preset = self.preset
        usual = Recipe(
            dataset=self.training_set, architecture=preset.architecture, images=None,
            epochs=preset.epochs, batch_size=preset.batch_size, lr=preset.lr,
            seed=preset.seeds[0], keep=(), autocast=preset.autocast,
        )  # fmt: skip
        return dataclasses.replace(usual, **changes)


def recipes(lab: ToyLab) -> list[Recipe]:
    return [lab.recipe(method=m) for m in ("standard", "fgsm")]


def structure(lab: ToyLab, report: Report) -> dict[str, Any]:
    views = [View(m, lab.recipe(method=m)) for m in ("standard", "fgsm")]
    found = lab.compare(views)
    gap = found.estimate(
        lambda a, b: mean_off_diagonal(b) - mean_off_diagonal(a),
        *((v.name, v.name) for v in views),
    )
    accuracy = {v.name: lab.accuracy(v.recipe) for v in views}
    report.table("accuracy", [{"network": name, **row} for name, row in accuracy.items()])
    report.lines(
        "distance", {v.name: found.curve(mean_by_distance, (v.name, v.name)) for v in views},
        xlabel="apart", ylabel="CKA", title="by distance",
    )  # fmt: skip
    report.heatmaps("maps", [found.grid(v.name, v.name) for v in views], "both")
    report.matrix("same", [v.name for v in views], found.same_layer(), "same layer")
    return {"gap": gap, "accuracy": accuracy}


def history(lab: ToyLab, report: Report) -> dict[str, Any]:
    recipe = lab.recipe(epochs=2, watch=1, keep=(0, 1))
    report.table("history", lab.networks.history(recipe))
    return {"loss": [line["loss"] for line in lab.networks.history(recipe)]}


def judge_gap(q: Mapping[str, Any], preset: Preset) -> Judged:
    if preset.absolute:
        raise NotTestable("nothing is published")
    return in_words(q["gap"]), clear(q["gap"], 0.0)


PRESET = Preset(
    name="smoke", dataset="digits", architecture="wrn-10-1", seeds=(0,), train_images=60,
    test_images=60, epochs=1, batch_size=30, lr=0.05, compare_batch=20, minutes=1,
)  # fmt: skip


def experiment(folder: Path, preset: Preset = PRESET) -> Experiment:
    return Experiment(
        folder=folder,
        description="Nothing much.",
        presets={"smoke": preset, "gpu": dataclasses.replace(preset, device="cuda")},
        lab=ToyLab,
        questions={
            "Q1": Question("structure", structure, recipes, ToyLab.accuracy),
            "Q2": Question("history", history),
        },
        claims=[Claim("it rises", "made up", "gap > 0", "Q1", "Q1_accuracy.csv", judge_gap)],
        blocks={"loss": lambda folders: f"of {len(folders)}\n"},
    )
