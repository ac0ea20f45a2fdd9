"""The faster form of a model is found once, and again when the model is another."""

from __future__ import annotations

import pytest
import torch

from repsim_fast import models
from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, faster_form, train
from repsim_fast.training.faster_form import Forms


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
