"""Networks by recipe: trained once, kept by the recipe's hash, resumed where interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repsim_fast import models, training
from repsim_fast.data import ImageData

from .datasets import DataSet

# Bumped when networks of an unchanged recipe would come out differently.
VERSION = 2


class OutOfTime(Exception):
    """The part's time is over; everything so far is kept."""


@dataclass(frozen=True)
class Recipe:
    """Everything a trained network depends on.

    Attributes:
        method: "standard", "adversarial" (examples of ``threat``), "trades" or "n-fgsm" (of the
            radius of "linf").
        threat: Threat model of adversarial training.
        radius: Multiple of its published radius.
        images: Training images, None for all.
        watch: Epochs between evaluations; 0 for none.
        keep: Epochs after which the network is kept besides the last; 0 is the initialisation.
    """

    dataset: str
    architecture: str
    method: str
    threat: str
    radius: float
    images: int | None
    epochs: int
    batch_size: int
    lr: float
    seed: int
    keep: tuple[int, ...]
    autocast: str | None
    size: int | None = None
    watch: int = 0

    @property
    def name(self) -> str:
        """Short name with a hash of everything."""
        kind = self.method if self.method != "adversarial" else f"at-{self.threat}"
        return f"{self.architecture}-{kind}-{self.radius:g}-seed{self.seed}-{digest(self)}"


def digest(thing: Any) -> str:
    """Hash of plain data or a dataclass, 12 hexadecimal digits."""
    plain = dataclasses.asdict(thing) if dataclasses.is_dataclass(thing) else thing
    text = json.dumps([VERSION, plain], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Networks:
    """Trains what is missing and loads what is there.

    Args:
        folder: Of the checkpoints; not for version control.
        dataset: Data set of the recipes.
        train_data, eval_data: Its images; ``eval_data`` gives the accuracies of each epoch.
        deadline: ``time.monotonic()`` at which training stops with `OutOfTime` before an epoch
            that would not end in time.
    """

    def __init__(
        self,
        folder: Path,
        dataset: DataSet,
        train_data: ImageData,
        eval_data: ImageData,
        *,
        device: str,
        deadline: float | None = None,
        progress: bool = True,
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.train_data = train_data
        self.eval_data = eval_data
        self.device = device
        self.deadline = deadline
        self.progress = progress
        self.trained = 0
        self.seconds: dict[str, float] = {}  # of the whole training of each network that was used

    def load(self, recipe: Recipe, epoch: int | None = None) -> nn.Module:
        """The network after an epoch that the recipe keeps, or the trained one."""
        self.train(recipe)
        whole = epoch is None or epoch == recipe.epochs
        name = "last.safetensors" if whole else _kept(int(epoch or 0))
        model, _ = models.load_checkpoint(self.folder / recipe.name / name)
        return model.to(self.device)

    def history(self, recipe: Recipe) -> list[dict[str, Any]]:
        """What happened in each epoch, accuracies among it."""
        self.train(recipe)
        lines = (self.folder / recipe.name / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def train(self, recipe: Recipe) -> None:
        """Train, or go on training, unless it is done already."""
        folder = self.folder / recipe.name
        done = folder / "done.json"
        if done.exists():
            self.seconds[recipe.name] = json.loads(done.read_text())["seconds"]
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1))
        architecture = {
            "name": recipe.architecture,
            "num_classes": len(self.train_data.classes),
            "in_channels": self.train_data.images.shape[1],
        }
        model = models.build(**architecture, seed=recipe.seed)
        held = self.train_data
        if recipe.images is not None and recipe.images < len(held):
            held = held.subset(recipe.images)
        log = folder / "log.jsonl"
        keep = _Keeper(model, architecture, folder, log, recipe.keep, self.deadline)
        method = dataclasses.replace(self._method(recipe), start_epoch=keep)
        history = training.train(
            model,
            held,
            method=method,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            lr=recipe.lr,
            augment=self.dataset.augment,
            autocast=None if recipe.autocast is None else getattr(torch, recipe.autocast),
            eval_data=self.eval_data if recipe.watch else None,
            eval_attack=self.dataset.threats["linf"].build(seed=0),
            eval_every=max(recipe.watch, 1),
            checkpoint=folder,
            architecture=architecture,
            resume=True,
            log_path=log,
            device=self.device,
            seed=recipe.seed,
            progress=self.progress,
        )
        self.trained += 1
        # Of all epochs, also of those before an interruption.
        self.seconds[recipe.name] = sum(epoch.seconds for epoch in history.epochs)
        # Done first: were it the other way round, a kill in between would train all anew.
        done.write_text(json.dumps({"seconds": self.seconds[recipe.name]}))
        (folder / "resume.safetensors").unlink()

    def _method(self, recipe: Recipe) -> training.methods.Method:
        threat = self.dataset.threats[recipe.threat]
        if recipe.method == "standard":
            return training.methods.standard()
        if recipe.method == "adversarial":
            sample = threat.build(strength=recipe.radius, training=True)

            def perturb(model: nn.Module, batch: training.methods.Batch) -> torch.Tensor:
                # Built anew from the batch's random numbers, so that resuming changes nothing.
                seed = batch.generator
                attack = threat.build(strength=recipe.radius, training=True, seed=seed)
                return attack(model, batch.x, batch.y)

            plain = training.methods.adversarial(sample, name=f"at-{recipe.threat}")
            return dataclasses.replace(plain, perturb=perturb)
        linf = self.dataset.threats["linf"]
        eps = linf.common["eps"] * recipe.radius
        options = {}
        if recipe.method == "trades":
            options = {"steps": linf.train["steps"], "step_size": eps / 4, "execution": "fast"}
        return training.methods.build(recipe.method, eps=eps, **options)


class _Keeper:
    """Called before each epoch: keeps the network as it is then, and the time.

    The number of epochs done is the number of lines in the log, also after resuming.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: dict[str, Any],
        folder: Path,
        log: Path,
        keep: tuple[int, ...],
        deadline: float | None,
    ) -> None:
        self.save: Callable[[Path], None] = lambda path: models.save_checkpoint(
            path, model, **architecture
        )
        self.folder, self.log, self.keep, self.deadline = folder, log, keep, deadline
        self.began: float | None = None

    def __call__(self) -> None:
        epoch = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        if epoch in self.keep:
            self.save(self.folder / _kept(epoch))
        now = time.monotonic()
        took = 0.0 if self.began is None else now - self.began
        self.began = now
        if self.deadline is not None and now + took > self.deadline:
            raise OutOfTime(f"stopped before epoch {epoch} of {self.folder.name}")


def _kept(epoch: int) -> str:
    return f"epoch{epoch:03d}.safetensors"
