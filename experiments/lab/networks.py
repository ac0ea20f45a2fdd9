"""Networks by recipe: trained once, kept by the recipe's hash, resumed where interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, SupportsFloat, TypeVar

from torch import nn

from repsim_fast import models, pruning, training
from repsim_fast._core import headers
from repsim_fast._core.locks import Taken, locked

from .files import digest, read_json, write_json, write_text
from .recipes import Recipe, Training
from .record import LAB, commit

R = TypeVar("R", bound=Recipe)

_DONE = headers.record({"seconds": headers.number(0)}, {"commit": headers.text()})
LATE = "the time is over"
_PAUSE = 1.0  # seconds between looks at what another process trains


class OutOfTime(Exception):
    """The part's time is over; everything so far is kept."""


class Networks(Generic[R]):
    """Trains what is missing and loads what is there.

    Args:
        folder: Of the checkpoints; not for version control.
        plan: What a recipe asks for.
        device: Where networks are trained, and where `load` puts them.
        deadline: ``time.monotonic()`` at which training stops with `OutOfTime`, before an epoch
            that would not end in time.
        progress: Show progress bars.
    """

    def __init__(
        self,
        folder: Path,
        plan: Callable[[R], Training],
        *,
        device: str,
        deadline: float | None = None,
        progress: bool = True,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.device = device
        self.deadline = deadline
        self.progress = progress
        self.trained = 0
        self.seconds: dict[str, float] = {}  # of the whole training of each network that was used

    def load(self, recipe: R, epoch: int | None = None) -> nn.Module:
        """The network after an epoch that the recipe keeps, or the trained one."""
        self.train(recipe)
        whole = epoch is None or epoch == recipe.epochs
        name = "last.safetensors" if whole else _kept(int(epoch or 0))
        model, _ = models.load_checkpoint(self.folder / recipe.name / name)
        return model.to(self.device)

    def history(self, recipe: R) -> list[dict[str, Any]]:
        """What happened in each epoch, accuracies among it."""
        self.train(recipe)
        lines = (self.folder / recipe.name / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def measured(self, recipe: R, name: str, settings: Any, measure: Callable[[], Any]) -> Any:
        """What is measured of a network, as JSON holds it, kept beside it: once for equal settings.

        Args:
            name: Of the kind of measurement.
            settings: Plain data that tell this measurement from others of its kind.
            measure: Makes it, plain data; NaN comes out as None.
        """
        self.train(recipe)
        path = self.folder / recipe.name / f"{name}-{digest(settings)}.json"
        if not path.exists():
            write_json(path, measure())
        return read_json(path)

    def train(self, recipe: R) -> None:
        """Train, or go on training, unless it is done already."""
        folder = self.folder / recipe.name
        done = folder / "done.json"
        if done.exists():
            self.seconds[recipe.name] = self._seconds(recipe, done)
            return
        self._check_time(f"before {recipe.name}")
        write_text(folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=1))
        history = self._trained(recipe, folder)
        if history.stopped == LATE:
            done_epochs = f"{len(history)} of {recipe.epochs} epochs"
            raise OutOfTime(f"stopped after {done_epochs} of {recipe.name}")
        self.trained += 1
        # Of all epochs, also of those before an interruption.
        self.seconds[recipe.name] = sum(epoch.seconds for epoch in history.epochs)
        # Done first: were it the other way round, a kill in between would train all anew.
        note = {"seconds": self.seconds[recipe.name], "commit": commit(LAB.parent)}
        write_text(done, json.dumps(note))
        (folder / "resume.safetensors").unlink(missing_ok=True)

    def commit(self, recipe: R) -> str:
        """The commit that finished the training, empty where it is not known."""
        self.train(recipe)
        done = self.folder / recipe.name / "done.json"
        return str(headers.parsed(done.read_text(), _DONE, str(done)).get("commit", ""))

    def share(self, recipes: Iterable[R]) -> None:
        """Train what is neither done nor being trained by another process, in this order.

        Processes that do so with the same folder at the same time share the work. A training that
        begins with another network waits while a process has that in hand.

        Raises:
            OutOfTime: As `train` does.
        """
        left = list(recipes)
        while left:
            waiting = [recipe for recipe in left if not self._shared(recipe)]
            if len(waiting) == len(left):
                time.sleep(_PAUSE)
            left = waiting

    def _shared(self, recipe: Any) -> bool:
        """Whether nothing is left to do here: trained, or in another process's hands."""
        if self._is_done(recipe):
            return True
        self._check_time(f"before {recipe.name}")
        for earlier in recipe.after:
            self._shared(earlier)
            if not self._is_done(earlier):
                return False
        folder = self.folder / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(folder / ".training.lock")
        except Taken:
            return True
        with lock:
            self.train(recipe)
        return True

    def _is_done(self, recipe: Recipe) -> bool:
        return (self.folder / recipe.name / "done.json").exists()

    def _seconds(self, recipe: R, done: Path) -> float:
        """Of the whole training: as noted, or the log's where the note is damaged."""
        try:
            seconds: float = headers.parsed(done.read_text(), _DONE, str(done))["seconds"]
        except ValueError:
            lines = (done.parent / "log.jsonl").read_text().splitlines()
            seconds = sum(json.loads(line)["seconds"] for line in lines)
            write_text(done, json.dumps({"seconds": seconds}))
        return seconds

    def _trained(self, recipe: R, folder: Path) -> training.History:
        asked = self.plan(recipe)
        model, architecture = asked.model, dict(asked.architecture)
        began = time.monotonic()

        def keep(epochs: int) -> None:
            if epochs in recipe.keep:
                _save(folder / _kept(epochs), model, architecture)

        def on_epoch(_: nn.Module, record: training.Epoch) -> Mapping[str, SupportsFloat] | None:
            nonlocal began
            done = record.epoch + 1
            keep(done)
            figures = None if asked.on_epoch is None else asked.on_epoch(model, record)
            began, took = (now := time.monotonic()), now - began
            if done < recipe.epochs and self.deadline is not None and now + took > self.deadline:
                raise training.StopTraining(LATE, figures)
            return figures

        keep(0)
        masks = asked.masks
        saving = training.Saving(
            folder,
            architecture if masks is None else None,  # of which masked networks are not
            resume=True,
            log=folder / "log.jsonl",
        )
        with contextlib.nullcontext() if masks is None else masks(model):
            history = training.train(
                model,
                asked.data,
                **asked.options,
                on_epoch=on_epoch,
                saving=saving,
                device=self.device,
                progress=self.progress,
            )
        if masks is not None:
            _save(folder / "last.safetensors", model, architecture)
        return history

    def _check_time(self, where: str) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime(f"stopped {where}")


def _save(path: Path, model: nn.Module, architecture: Mapping[str, Any]) -> None:
    """As an ordinary network, masked weights 0."""
    ordinary = models.build(**architecture, seed=0)
    ordinary.load_state_dict(pruning.apply(model))
    models.save_checkpoint(path, ordinary, **architecture)


def _kept(epoch: int) -> str:
    return f"epoch{epoch:03d}.safetensors"
