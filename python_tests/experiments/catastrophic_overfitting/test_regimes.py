"""Detectors and indices find planted cases, and nothing else."""

import math

import pytest
import torch
from torch import nn

from experiments.catastrophic_overfitting.overfitting_lab import OverfittingLab
from experiments.catastrophic_overfitting.presets import PRESETS
from experiments.catastrophic_overfitting.recipes import Filtered, Recipe, method_of
from experiments.catastrophic_overfitting.regimes import collapse, is_collapsed, regimes
from experiments.catastrophic_overfitting.units import dimensions, participation_ratio
from repsim_fast.analysis.estimates import Estimate
from repsim_fast.data.interventions import dct_carriers, low_pass
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
        ([HEALTHY, HEALTHY, GONE, GONE], 2),
        ([HEALTHY, GONE, HEALTHY, GONE], 3),  # and back in between
        ([HEALTHY, GONE, HEALTHY], None),
        ([GONE, GONE], None),  # from the beginning
        ([HEALTHY, WEAK, GONE], None),  # had nothing to lose just before
        ([], None),
    ],
)
def test_the_collapse_is_where_it_stays(along, at):
    assert collapse(along, 10) == at


def test_dimensions_of_planted_spectra():
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    q, _ = torch.linalg.qr(x - x.mean(0))  # white
    assert participation_ratio(q) == pytest.approx(6, rel=1e-6)
    assert participation_ratio(q[:, :1] * torch.ones(4)) == pytest.approx(1, rel=1e-6)
    assert participation_ratio(q * torch.tensor([1, 1, 1, 0, 0, 0.0]) + 5) == pytest.approx(3)
    wide = q[:50] @ torch.randn(6, 300, generator=torch.Generator().manual_seed(1))
    assert participation_ratio(wide) == pytest.approx(participation_ratio(wide.T.T.double()))
    assert math.isnan(participation_ratio(torch.ones(5, 3)))


def test_dimensions_leave_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    found = dimensions(
        model, torch.rand(10, 1, 2, 2), lambda _, m: isinstance(m, (nn.Conv2d, nn.Linear))
    )
    assert list(found) == ["0", "3"]
    assert found["0"] == pytest.approx(1, rel=1e-4)  # three channels of one
    assert model.training
    assert model[1].num_batches_tracked == 0
    assert not model[0]._forward_hooks


class ByFeature(nn.Module):
    """Looks at the carriers, or at nothing."""

    def __init__(self, carriers, weight):
        super().__init__()
        self.weight = nn.Parameter(weight * carriers.flatten(1))

    def forward(self, x):
        return (x - 0.3).flatten(1) @ self.weight.T


def test_scores_tell_what_a_planted_network_goes_by(tmp_path, monkeypatch):
    lab = OverfittingLab(PRESETS["smoke"], tmp_path, progress=False)
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
