"""Detectors and indices find planted cases, and nothing else."""

import math

import pytest
import torch
from torch import nn

from experiments.catastrophic_overfitting.overfitting_lab import OverfittingLab
from experiments.catastrophic_overfitting.presets import PRESETS
from experiments.catastrophic_overfitting.questions import similarity
from experiments.catastrophic_overfitting.recipes import Filtered, Recipe, method_of
from experiments.catastrophic_overfitting.regimes import collapse, is_collapsed, regimes
from experiments.lab.cards import Card
from repsim_fast import models
from repsim_fast.analysis.estimates import Estimate
from repsim_fast.analysis.selectivity import class_selectivity
from repsim_fast.data.interventions import dct_carriers, inject, low_pass
from repsim_fast.training.methods import Progress, TrainingBatch


def scores(clean, fgsm, robust):
    values = {"clean": clean, "fgsm": fgsm, "robust": robust}
    return {name: Estimate(value, 0.01) for name, value in values.items()}


HEALTHY, GONE = scores(0.6, 0.35, 0.3), scores(0.85, 0.8, 0.0)
WEAK, UNTRAINED = scores(0.8, 0.2, 0.0), scores(0.12, 0.1, 0.0)
SUFFICIENT = scores(1.0, 1.0, 0.97)


def test_collapse_is_robustness_that_one_step_alone_sees():
    assert is_collapsed(GONE, 10)
    for other in (HEALTHY, WEAK, UNTRAINED, SUFFICIENT):
        assert not is_collapsed(other, 10)


@pytest.mark.parametrize(
    ("collapsed", "onset", "end"),
    [
        ([0, 0, 1, 1, 0], (1, 2), (3, 4)),
        ([0, 0, 0, 0, 0], None, None),
        ([1, 1, 1, 0, 0], None, (2, 3)),  # needs no feature
        ([0, 1, 1, 1, 1], (0, 1), None),  # no end among them
        ([0, 1, 0, 1, 0], (0, 1), (3, 4)),
        ([1, 1, 1, 1, 1], None, None),
    ],
)
def test_onset_and_end_lie_between_neighbours(collapsed, onset, end):
    found = regimes([0, 1, 2, 3, 4], collapsed)
    assert (found.onset, found.end) == (onset, end)
    assert found.collapsed == tuple(map(bool, collapsed))


@pytest.mark.parametrize(
    ("along", "at"),
    [
        ([HEALTHY, HEALTHY, GONE, GONE], (1, 2)),
        ([HEALTHY, GONE, HEALTHY, GONE], (2, 3)),  # and back in between
        ([HEALTHY, GONE, HEALTHY], None),
        ([GONE, GONE], None),  # from the beginning
        ([HEALTHY, WEAK, GONE, GONE], (0, 2)),  # robustness is lost before one step seems to hold
        ([UNTRAINED, WEAK, GONE], None),  # had nothing to lose
        ([], None),
    ],
)
def test_the_collapse_is_where_it_stays(along, at):
    assert collapse(along, 10) == at


class ByFeature(nn.Module):
    """Looks at the carriers, or at nothing."""

    def __init__(self, carriers, weight):
        super().__init__()
        self.weight = nn.Parameter(weight * carriers.flatten(1))

    def forward(self, x):
        return (x - 0.3).flatten(1) @ self.weight.T


def test_scores_tell_what_a_planted_network_goes_by(tmp_path, monkeypatch):
    lab = OverfittingLab(PRESETS["smoke"], tmp_path, progress=False)
    monkeypatch.setattr(lab.networks, "train", lambda recipe: Card({}, 0.0, "", "", []))
    feature = ByFeature(dct_carriers(10, (8, 8), 1), 1.0)
    monkeypatch.setattr(lab.networks, "load", lambda *_: feature)
    # Radius 4, amplitude 250: the images' own part is small beside the feature.
    found = {k: e.value for k, e in lab.scores(lab.recipe(eps=4.0, beta=250.0)).items()}
    assert found["clean"] > 0.95
    assert found["feature"] > 0.95
    assert found["alone"] == 1.0
    assert found["image"] < 0.05
    assert found["original"] < 0.5
    blind = ByFeature(dct_carriers(10, (8, 8), 1), 0.0)
    monkeypatch.setattr(lab.networks, "load", lambda *_: blind)
    found = lab.scores(lab.recipe(eps=5.0, beta=250.0))
    assert all(e.value < 0.2 for e in found.values())


def test_units_are_those_of_the_layers_on_images_with_the_feature(tmp_path, monkeypatch):
    lab = OverfittingLab(PRESETS["smoke"], tmp_path, progress=False)
    monkeypatch.setattr(lab.networks, "train", lambda recipe: Card({}, 0.0, "", "", []))
    model = models.build("wrn-10-1", num_classes=10, in_channels=1, seed=0)
    monkeypatch.setattr(lab.networks, "load", lambda *_: model)
    found = lab.units(lab.recipe(), 2, 60.0)
    x, y = inject(lab.test_data, 60 / 255, lab.carriers)
    with torch.no_grad():
        logits = model.eval()(x).double()
    variances = torch.linalg.eigvalsh(logits.T.cov())
    ratio = float(variances.sum() ** 2 / variances.square().sum())
    assert found["dimensions"]["fc"].value == pytest.approx(ratio, rel=1e-4)
    assert 0 < found["dimensions"]["fc"].standard_error < ratio
    with torch.no_grad():
        block = model.get_submodule("stage1.0")
        relu1 = block.relu1(block.bn1(model.conv1(x)))
    index = float(class_selectivity(relu1, y).mean())
    assert found["selectivity"]["stage1.0.relu1"].value == pytest.approx(index, rel=1e-4)
    assert math.isnan(found["selectivity"]["stage1.0.relu1"].standard_error)


def test_a_network_that_seeds_share_counts_once():
    def of_seed(seed, value):
        views = {"before": (recipe(seed=seed), 2), "pgd": (recipe(seed=0), 2)}
        units = {"before": Estimate(value, 0.1), "pgd": Estimate(3.0, 0.2)}
        by_kind = {view: {"dimensions": {"fc": one}} for view, one in units.items()}
        return similarity._Seed(seed, (2, 4), True, views, None, by_kind)

    found = similarity._units([of_seed(0, 1.0), of_seed(1, 2.0)], "dimensions")
    assert found["before"]["fc"] == Estimate(1.5, pytest.approx(0.26**0.5))
    assert found["pgd"]["fc"] == Estimate(3.0, 0.2)


def recipe(**changes):
    usual = {
        "dataset": "digits", "architecture": "wrn-10-1", "images": None, "epochs": 1,
        "batch_size": 8, "lr": 0.1, "seed": 0, "keep": (), "autocast": None,
        "method": "fgsm", "eps": 8.0, "beta": 0.0,
    }  # fmt: skip
    return Recipe(**{**usual, **changes})


@pytest.mark.parametrize("axes", ["both", "rows"])
def test_attacks_in_training_see_the_filter_and_the_network_filtered_images(axes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    batch = TrainingBatch(x, y, torch.Generator(), Progress(0, 1, 0.0, True, 0), None, 0.0)
    behind = method_of(recipe(bandwidth=3, axes=axes)).perturb(model, batch)
    torch.testing.assert_close(low_pass(behind, 3, axes=axes), behind)
    # The very images of FGSM on the filtered network, filtered.
    attacked = method_of(recipe()).perturb(Filtered(model, 3, axes), batch)
    torch.testing.assert_close(behind, low_pass(attacked, 3, axes=axes))
    assert not torch.allclose(behind, low_pass(x, 3, axes=axes), atol=1e-3)


def test_methods_have_the_published_settings(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "repsim_fast.training.methods.build", lambda name, **options: seen.update(options)
    )
    method_of(recipe(method="pgd", steps=10))
    assert seen["step_size"] == pytest.approx(2 / 255)
    assert (seen["model_mode"], seen["outside"]) == ("train", "clip")
    method_of(recipe(method="gradalign", alignment=0.2))
    assert seen["weight"] == 0.2
