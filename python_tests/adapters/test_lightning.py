"""The callback of Lightning, with the real trainer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

lightning = pytest.importorskip("lightning.pytorch")

from repsim_fast.adapters.lightning import CompareWithReference  # noqa: E402


class Network(lightning.LightningModule):  # type: ignore[name-defined, misc]
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))

    def training_step(self, batch: Any, number: int) -> Any:
        assert self.net.training
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Logger(lightning.loggers.CSVLogger):  # type: ignore[name-defined, misc]
    """Remembers what it was given; one that takes images."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.images: list[Any] = []

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        self.seen.append((step, dict(metrics)))

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.images += images


def _fit(network: Network, callback: CompareWithReference, images: Any, logger: Any) -> None:
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=2,  # two batches a step
        callbacks=[callback],
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(network, DataLoader(TensorDataset(images), 4))


@pytest.mark.filterwarnings("ignore")
def test_numbers_and_picture_every_so_many_steps(tmp_path: Path) -> None:
    network, images = Network(), torch.rand(64, 6)
    before = copy.deepcopy(network.net)
    callback = CompareWithReference(before, images, every=4, module=_net, batch_size=16)
    logger = Logger(tmp_path)
    _fit(network, callback, images, logger)
    assert list(callback.monitor.figures) == [4, 8, 12, 16]
    logged = [(step, figures) for step, figures in logger.seen if "cka/mean_same_layer" in figures]
    assert [step for step, _ in logged] == [4, 8, 12, 16]
    assert {f"cka/layer/{name}" for name in "012"} <= logged[0][1].keys()
    assert len(logger.images) == 4
    assert callback.result is not None
    # What is compared is the network in training.
    assert logged[-1][1]["cka/layer/1"] < 0.9999


@pytest.mark.filterwarnings("ignore")
def test_figures_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network, images = Network(), torch.rand(64, 6)
    callback = CompareWithReference(copy.deepcopy(network.net), images, every=8, module=_net)
    logger = lightning.loggers.TensorBoardLogger(tmp_path)
    _fit(network, callback, images, logger)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert [image.step for image in events.Images("similarity")] == [8, 16]
    assert [scalar.step for scalar in events.Scalars("cka/mean_same_layer")] == [8, 16]


def _net(module: Network) -> nn.Module:
    return module.net
