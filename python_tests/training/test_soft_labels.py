"""Soft labels and label smoothing: in the losses of methods, in accuracies, with clear errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, Optimisation, Saving, evaluate, methods, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
QUICK: dict[str, Any] = {"epochs": 1, "progress": False}
SMALL: dict[str, dict[str, Any]] = {
    name: {"eps": 0.1, "steps": 2} for name in ("pgd", "trades", "mart")
} | {"free": {"replays": 2}}
OF_ONE_CLASS = ("mart", "ibp", "crown-ibp")
WITH_SOFT = [name for name in methods.available() if name not in OF_ONE_CLASS]


def one_hot(labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 10).float()


def trained(net: nn.Module, data: Any, method: str, **options: Any) -> nn.Module:
    train(net, data, method=method, method_options=SMALL.get(method), **QUICK, **options)
    return net


@pytest.mark.parametrize("method", WITH_SOFT)
def test_one_hot_labels_are_the_labels(method: str, small_net: Build, few: Pair) -> None:
    images, labels = few
    hard = trained(small_net(), few, method)
    soft = trained(small_net(), (images, one_hot(labels)), method)
    for got, want in zip(soft.parameters(), hard.parameters(), strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", WITH_SOFT)
def test_smoothed_labels_are_soft_ones(method: str, small_net: Build, few: Pair) -> None:
    """(1 - s) y + s / C (Szegedy et al., 2016)."""
    images, labels = few
    net = small_net()
    smoothed = trained(small_net(), few, method, optimisation=Optimisation(label_smoothing=0.3))
    soft = trained(net, (images, 0.7 * one_hot(labels) + 0.03), method)
    for got, want in zip(smoothed.parameters(), soft.parameters(), strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net[0].weight, trained(small_net(), few, method)[0].weight)


def test_what_the_loss_is(few: Pair) -> None:
    images, _ = few
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    soft = torch.rand(200, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    want = -(soft * net(images).log_softmax(1)).sum(1).mean().item()
    history = train(net, [(images, soft)], **QUICK)
    assert history.last.loss == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dtypes(dtype: torch.dtype, small_net: Build, few: Pair) -> None:
    images, labels = few
    for net in (small_net(), small_net().double()):
        history = train(net, (images, one_hot(labels).to(dtype)), **QUICK)
        assert history.last.loss > 0


def test_accuracies_count_the_most_probable_class(small_net: Build, few: Pair) -> None:
    images, labels = few
    soft = 0.6 * one_hot(labels) + 0.4 * one_hot(labels.roll(1))
    net = small_net()
    evaluation = Evaluation((images, soft), PGD(0.1, seed=0))
    history = train(net, (images, soft), evaluation=evaluation, **QUICK)
    scores = evaluate(net, few, PGD(0.1, seed=0))
    assert history.last.clean_accuracy == scores.clean
    assert history.last.robust_accuracy == scores.robust
    assert 0 < history.last.train_accuracy < 1


def test_evaluation_data_have_the_classes_of_the_model(small_net: Build, few: Pair) -> None:
    images, labels = few
    soft = torch.nn.functional.pad(one_hot(labels), (0, 3))
    with pytest.raises(ValueError, match="data: soft labels must have the model's 10 classes, got"):
        evaluate(small_net(), (images, soft))


def test_resume_knows_them(small_net: Build, few: Pair, tmp_path: Path) -> None:
    images, labels = few
    soft = 0.6 * one_hot(labels) + 0.4 * one_hot(labels.roll(1))
    how = Optimisation(label_smoothing=0.1)
    train(small_net(), (images, soft), saving=Saving(tmp_path), optimisation=how, **QUICK)
    saving = Saving(tmp_path, resume=True)
    train(small_net(), (images, soft), saving=saving, optimisation=how, **QUICK)
    for data, other, message in (
        ((images, soft.roll(1, 1)), how, "data: '200 images"),
        ((images, labels), how, "data: '200 images"),
        ((images, soft), Optimisation(), r"label_smoothing: 0\.1 there, 0\.0 here"),
    ):
        with pytest.raises(ValueError, match=rf"other settings \({message}"):
            train(small_net(), data, saving=saving, optimisation=other, **QUICK)


class TestBadInput:
    def test_methods_of_one_class(self, small_net: Build, few: Pair) -> None:
        images, labels = few
        own = methods.Method("own", methods.standard().perturb, methods.standard().loss)
        for method in (*OF_ONE_CLASS, own):
            with pytest.raises(ValueError, match=r"method '.*' needs labels of one .*\(200, 10\)"):
                train(small_net(), [(images, one_hot(labels))], method=method, **QUICK)
            how = Optimisation(label_smoothing=0.1)
            with pytest.raises(ValueError, match=r"label_smoothing: method '.*' needs .* got 0\.1"):
                train(small_net(), few, method=method, optimisation=how, **QUICK)

    @pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
    def test_smoothing(self, share: float) -> None:
        with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\), got"):
            Optimisation(label_smoothing=share)

    @pytest.mark.parametrize("loader", [False, True])
    def test_labels(self, loader: bool, small_net: Build, few: Pair) -> None:
        images, labels = few
        soft = one_hot(labels)
        broken = soft.clone()
        broken[3, 2] = torch.nan
        for wrong, message in (
            (2 * soft, r"train_data.*: soft labels must be probabilities .*sums in \[2, 2\]"),
            (1.5 * soft - 0.05, r"soft labels must be probabilities .*values in \[-0\.05, 1\.45\]"),
            (broken, "soft labels must be probabilities .* got values in .nan, nan"),
            (soft[:, :9].softmax(1), "soft labels must have the model's 10 classes, got 9"),
            (nn.functional.pad(soft, (0, 1)), "soft labels must have the model's 10 cl.* got 11"),
            (soft[:5], r"one label for each, got 200 images and \(5, 10\) labels"),
            (soft.long(), r"one label for each, got 200 images and \(200, 10\) labels"),
        ):
            data = [(images, wrong)] if loader else (images, wrong)
            with pytest.raises(ValueError, match=message):
                train(small_net(), data, **QUICK)
