"""Every way of using a model, under what callers do: results are the same, nothing is changed.

Models and attacks may write on what they are given: a first layer that normalises in place is
common, and without copies images would be normalised twice, in the second epoch, under attack, or
in the next call. And the caller may be in inference mode.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import repsim_fast
from repsim_fast.analysis.class_means import class_means
from repsim_fast.analysis.curvature import input_hessian_top
from repsim_fast.analysis.dimensionality import dimensionality
from repsim_fast.analysis.gradients import input_unit_gradients
from repsim_fast.analysis.stages import making_stages
from repsim_fast.attacks import APGD, FGSM, PGD, AutoAttack
from repsim_fast.pruning import learned_scores, report
from repsim_fast.training import evaluate, methods, train
from repsim_fast.verification import certify, margin_bounds, verified_accuracy

IMAGES = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4


class Normalised(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.3).mul_(0.9) if self.in_place else (x - 0.3) * 0.9


def network(in_place: bool) -> nn.Sequential:
    torch.manual_seed(1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    body = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(Normalised(in_place), *body, *head).eval()


def added(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """An attack that writes on the images and labels that it is given."""
    y.zero_()
    return x.add_(0.1).clamp_(0, 1)


def trained(method: Any) -> Callable[[nn.Module, Tensor], Any]:
    def run(model: nn.Module, x: Tensor) -> Any:
        history = train(
            model, (x, LABELS), method=method, epochs=2, batch_size=len(x), seed=0, progress=False
        )
        return history.last.loss, model.state_dict()

    return run


def learned(model: nn.Module, x: Tensor) -> Any:
    with learned_scores(model, 0.5):
        return trained("standard")(model, x)


def recorded(model: nn.Module, x: Tensor, path: Path) -> str:
    recording = repsim_fast.record(model, x, path, batch_size=20)
    return str(repsim_fast.compare({"network": recording}).to_dataframe().to_numpy().tolist())


WAYS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "evaluate": lambda m, x: evaluate(m, (x, LABELS), {"fgsm": FGSM(0.1), "again": FGSM(0.1)}),
    "evaluate, others": lambda m, x: evaluate(m, (x, LABELS), {"add": added, "fgsm": FGSM(0.1)}),
    "standard": trained("standard"),
    "others": trained(methods.adversarial(added)),
    "pgd": trained(methods.pgd(0.1, steps=2)),
    "trades": trained(methods.trades(0.1, steps=2)),
    "FGSM": lambda m, x: FGSM(0.1)(m, x, LABELS),
    "PGD": lambda m, x: PGD(0.1, steps=3, seed=0)(m, x, LABELS),
    "fast": lambda m, x: PGD(0.1, steps=3, seed=0, execution="fast")(m, x, LABELS),
    "APGD": lambda m, x: APGD(0.1, steps=4, seed=0)(m, x, LABELS),
    "AutoAttack": lambda m, x: AutoAttack(0.1, stages=("apgd-ce", "apgd-t"), seed=0)(
        m, x[:8], LABELS[:8]
    ),
    "class means": lambda m, x: class_means(m, (x, LABELS)),
    "dimensionality": lambda m, x: repr(
        dimensionality(m, (x, LABELS), layers="3", perturbation=added)
    ),
    "gradients": lambda m, x: input_unit_gradients(m, x[:5], layers="3"),
    "curvature": lambda m, x: input_hessian_top(m, x[:3], LABELS[:3]),
    "stages": lambda m, x: making_stages(m, x, ["1", "3"], stages=["1", "3"]),
    "list_layers": lambda m, x: str(repsim_fast.list_layers(m, x)),
    "verified": lambda m, x: verified_accuracy(m, (x, LABELS), 0.01),
    "margins": lambda m, x: margin_bounds(m, x, LABELS, 0.01),
    "certify": lambda m, x: repr(certify(m, x[:3], sigma=0.1, n=200, seed=0)),
    "report": lambda m, x: str(report(m, x[:1])),
    "learned": learned,
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("way", WAYS)
def test_what_writes_on_images_gets_copies(way: str) -> None:
    found = []
    for in_place in (False, True):
        images = IMAGES.clone()
        found.append(WAYS[way](network(in_place), images))
        assert torch.equal(images, IMAGES)
        assert torch.equal(LABELS, torch.arange(40) % 4)
    assert same(*found)


@pytest.mark.parametrize("way", WAYS)
def test_within_inference_mode(way: str) -> None:
    want = WAYS[way](network(False), IMAGES.clone())
    model, images = network(False), IMAGES.clone()
    with torch.inference_mode():
        assert same(WAYS[way](model, images), want)
    assert not any(held.is_inference() for held in (*model.parameters(), *model.buffers()))
    model(images).sum().backward()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["evaluate", "FGSM", "PGD", "fast", "APGD", "certify"])
def test_frozen_scripts_which_have_no_mode(way: str) -> None:
    frozen = torch.jit.freeze(torch.jit.script(network(False)))
    assert same(WAYS[way](frozen, IMAGES.clone()), WAYS[way](network(False), IMAGES.clone()))


def test_recordings_too(tmp_path: Path) -> None:
    images = IMAGES.clone()
    one, other = (recorded(network(way), images, tmp_path / str(way)) for way in (False, True))
    assert torch.equal(images, IMAGES)
    assert one == other
