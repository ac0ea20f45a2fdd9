"""The faster form of a model is found once, and again when the model is another."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, faster_form, train
from repsim_fast.training.faster_form import Form, Forms


@pytest.fixture
def asked(monkeypatch):
    """How often a form was looked for."""
    looked, find = [], faster_form.faster_form

    def counted(*of):
        looked.append(of)
        return find(*of)

    monkeypatch.setattr(faster_form, "faster_form", counted)
    return looked


def test_a_training_looks_once(asked, few):
    images = (few[0][:40], few[1][:40])
    model = models.build("resnet-8", num_classes=10, in_channels=1, seed=0)
    evaluation = Evaluation(images, attack=PGD(0.1, steps=1))
    train(model, images, method="fgsm", epochs=3, evaluation=evaluation, progress=False)
    assert len(asked) == 1


def test_another_model_or_other_images_are_looked_at_anew(asked):
    model = models.build("resnet-8", num_classes=10, in_channels=1, seed=0)
    forms, image = Forms(), torch.rand(1, 1, 8, 8)
    contiguous = torch.contiguous_format
    first = forms.of(model.train(), image, contiguous)
    assert first.rectifiers
    assert forms.of(model.eval(), image, contiguous) is first
    with torch.autocast("cpu", torch.bfloat16):
        assert forms.of(model, image, contiguous) is not first
    forms.of(model, torch.rand(1, 1, 12, 12), contiguous)
    forms.of(model, image, torch.channels_last)
    assert len(asked) == 4
    handle = model.conv1.register_forward_hook(lambda *_: None)
    assert not forms.of(model, image, contiguous).rectifiers
    handle.remove()
    assert forms.of(model, image, contiguous).rectifiers
    assert len(asked) == 6


class Branching(nn.Module):
    """What comes before a ReLU is read beside it, on some branch."""

    def __init__(self, branch: str, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branch, self.share, self.shares = branch, 0.0, [0.0]
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.relu, self.drop, self.linear = nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        before = self.norm(self.conv(x))
        after = self.drop(self.relu(before))
        if self._is_taken(len(x)):
            after = after + before
        logits: Tensor = self.linear(after.mean((2, 3)))
        return logits

    def switch_on(self) -> None:
        if self.branch == "number":
            self.share = 1.0
        self.shares[0] = 1.0  # in a list, which the model's structure does not show

    def _is_taken(self, n: int) -> bool:
        return {
            "never": lambda: False,
            "number": lambda: self.share > 0,
            "list": lambda: self.shares[0] > 0,
            "many": lambda: n > 8,
            "few": lambda: n < 8,
            "random": lambda: self.training and float(torch.rand(())) < 0.3,
            "random evaluation": lambda: not self.training and float(torch.rand(())) < 0.3,
            "Python's random": lambda: random.random() < 0.3,
        }[self.branch]()


BRANCHES = ["number", "list", "many", "few", "random", "random evaluation", "Python's random"]


def _trained(branch: str, norm: bool, images: Any) -> nn.Module:
    model = Branching(branch, norm)
    evaluation = Evaluation(images, attack=PGD(0.1, steps=1))
    train(
        model, images, method="fgsm", epochs=3, batch_size=20, evaluation=evaluation,
        on_epoch=lambda *_: model.switch_on(), progress=False,
    )  # fmt: skip
    return model


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("branch", BRANCHES[:-1])  # no seed governs Python's generator
def test_branches_that_a_look_may_miss(branch, norm, few, monkeypatch):
    images = (few[0][:40], few[1][:40])
    got = _trained(branch, norm, images)
    monkeypatch.setattr(faster_form, "faster_form", lambda *_: Form([], []))
    want = _trained(branch, norm, images)
    for name, value in want.state_dict().items():
        torch.testing.assert_close(got.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("branch", ["never", *BRANCHES])
def test_forms_of_models_that_branch(branch):
    model, images = Branching(branch, norm=False), torch.rand(20, 1, 8, 8)
    forms = Forms()
    first = forms.of(model, images, torch.contiguous_format)
    assert bool(first.rectifiers) == (branch in ("never", "number", "list"))
    model.switch_on()
    then = forms.of(model, images, torch.contiguous_format)
    assert bool(then.rectifiers) == (branch == "never")


def test_a_form_that_holds_is_not_looked_for_again(asked):
    model, forms = Branching("never", norm=True), Forms()
    images = torch.rand(20, 1, 8, 8)
    for n in (20, 20, 10, 20):
        forms.of(model, images[:n], torch.contiguous_format)
    assert len(asked) == 2
