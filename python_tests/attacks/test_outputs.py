"""Models whose logits are inside of what they return are attacked as if they returned them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast.attacks import APGD, FGSM, PGD, AutoAttack
from repsim_fast.training import evaluate

X = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@dataclass
class Output:
    hidden: Tensor
    logits: Tensor


class Wrapped(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.net = models.build("resnet-8", num_classes=10, seed=0).eval()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


# As the network has it, so that there is something to attack.
Y = Wrapped(lambda logits: logits)(X).argmax(1)

FORMS = {
    "object": lambda logits: Output(logits.sum(1), logits),
    "mapping": lambda logits: {"loss": logits.sum(), "logits": logits},
    "alone": lambda logits: {"out": logits},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "attack",
    [
        lambda: PGD(0.1, steps=2, seed=0),
        lambda: PGD(0.1, steps=2, seed=0, execution="fast"),
        lambda: FGSM(0.1),
        lambda: APGD(0.1, steps=3, seed=0),
        lambda: AutoAttack(0.1, steps=2, seed=0, stages=("apgd-ce", "apgd-t")),
    ],
    ids=["pgd", "fast", "fgsm", "apgd", "autoattack"],
)
def test_attacks(form: str, attack: Any) -> None:
    model = Wrapped(FORMS[form])
    found = attack()(model, X, Y)
    assert torch.allclose(found, attack()(model.net, X, Y), atol=1e-6)
    assert not torch.equal(found, X)


def test_evaluation() -> None:
    attack = PGD(0.1, steps=2, seed=0)
    wrapped = evaluate(Wrapped(FORMS["object"]), (X, Y), attack)
    plain = evaluate(Wrapped(FORMS["object"]).net, (X, Y), PGD(0.1, steps=2, seed=0))
    assert (wrapped.clean, wrapped.robust) == (plain.clean, plain.robust)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda x: {"a": x, "b": x}, r"got dict with a, b; put a module around it"),
        (lambda x: (x, x), r"in \.logits or \['logits'\], got tuple; .*lambda x: model\(x\)\[0\]"),
    ],
)
def test_others_are_said(form: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FGSM(0.1)(Wrapped(form), X, Y)
    FGSM(0.1)(lambda x: models.build("resnet-8", num_classes=10, seed=0)(x), X, Y)


def test_normalised_images_are_told_two_ways() -> None:
    net = models.build("resnet-8", num_classes=10, seed=0).eval()
    mean, std = 0.5, 0.25
    normal = (X - mean) / std
    with pytest.raises(ValueError, match=r"models\.normalized\(model, mean, std\).*bounds=\(low"):
        FGSM(8 / 255)(net, normal, Y)
    low, high = torch.full((3, 1, 1), (0 - mean) / std), torch.full((3, 1, 1), (1 - mean) / std)
    by_bounds = FGSM(8 / 255 / std, bounds=(low, high))(net, normal, Y)
    wrapped = FGSM(8 / 255)(models.normalized(net, mean, std), X, Y)
    assert torch.allclose(by_bounds * std + mean, wrapped, atol=1e-5)
