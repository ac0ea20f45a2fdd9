"""On a GPU everything is as on the CPU: measures, data that lie elsewhere, training and attacks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from python_tests.support.in_order import compare
from repsim_fast._core.names import MEASURES, METHODS
from repsim_fast.attacks import APGD, PGD
from repsim_fast.similarity import grid
from repsim_fast.training import Evaluation, Optimisation, Saving, train
from repsim_fast.verification import verified_accuracy

pytestmark = pytest.mark.cuda

OPTIONS = {"standard": {}, "noise": {"sigma": 0.1}, "smoothing": {"sigma": 0.1}}


@pytest.mark.parametrize("measure", MEASURES)
def test_measures(measure: str) -> None:
    latent = torch.randn(60, 5, dtype=torch.float64)
    layers = [latent @ torch.randn(5, p).double() + torch.randn(60, p).double() for p in (6, 8, 10)]
    want = grid(measure, layers)
    got = grid(measure, [x.cuda() for x in layers])
    torch.testing.assert_close(got.cpu(), want, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_data_on_a_gpu(where: str) -> None:
    """So large that a copy which nobody waits for is not there in time."""
    images = torch.rand(64, 3, 256, 256)
    models = [nn.Sequential(nn.Conv2d(3, 4, 3, stride=4)).to(where) for _ in range(2)]
    want, got = (
        torch.as_tensor(compare(models, data, names=["a", "b"], batch_size=32).value)
        for data in (images, images.cuda())
    )
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_training(method: str, net_a: nn.Module, images: Tensor, labels: Tensor) -> None:
    history = train(
        net_a,
        (images, labels),
        method=method,
        method_options=OPTIONS.get(method, {"eps": 0.03}),
        epochs=1,
        batch_size=10,
        device="cuda",
        progress=False,
    )
    assert math.isfinite(history.last.loss)
    assert next(net_a.parameters()).is_cuda


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_a_training_that_goes_on(
    autocast: torch.dtype, net_a: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    for epochs in (1, 2):
        history = train(
            net_a,
            (images.cuda(), labels.cuda()),
            method="pgd",
            method_options={"eps": 0.03, "steps": 2},
            epochs=epochs,
            batch_size=10,
            schedule="constant",
            augment="crop+flip",
            optimisation=Optimisation(autocast=autocast, ema=0.9),
            evaluation=Evaluation((images, labels), PGD(0.03, steps=2)),
            saving=Saving(tmp_path / str(epochs)),
            device="cuda",
            progress=False,
        )
        assert len(history) == epochs


@pytest.mark.parametrize("attack", [PGD(0.03, execution="fast"), APGD(0.03, steps=5)], ids=repr)
def test_attacks_and_bounds(
    attack: PGD | APGD, net_a: nn.Module, images: Tensor, labels: Tensor
) -> None:
    net_a.eval().cuda()
    x, y = images.cuda(), labels.cuda()
    adv = attack(net_a, x, y)
    assert adv.is_cuda
    assert float((adv - x).abs().max()) <= 0.03 + 1e-6
    held = verified_accuracy(net_a, (images, labels), eps=1e-3)
    assert 0 <= held.verified <= held.clean <= 1
