"""Networks by recipe: trained once, kept by the recipe's hash, resumed where interrupted.

A network is its weights, and a card that says all that is known of it. Cards are small enough for
version control: with them a run goes on on a machine that has no weights, which are trained anew
where a question looks at the network itself.
"""

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
from repsim_fast._core.locks import Taken, locked

from . import cards
from .cards import Card
from .files import digest, plain, write_text
from .presets import mixed_precision
from .recipes import Recipe, Training
from .record import LAB, commit, machine

R = TypeVar("R", bound=Recipe)

LATE = "the time is over"
_RESUME = "resume.safetensors"
_PAUSE = 1.0  # seconds between looks at what another process trains


class OutOfTime(Exception):
    """The part's time is over; everything so far is kept."""


class Networks(Generic[R]):
    """Trains what is missing and loads what is there.

    Args:
        folder: Of the checkpoints; not for version control.
        plan: What a recipe asks for.
        device: Where networks are trained, and where `load` puts them.
        cards: Folder of the networks' cards; default: beside the checkpoints.
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
        cards: Path | None = None,
        deadline: float | None = None,
        progress: bool = True,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.device = device
        self.cards = cards
        self.deadline = deadline
        self.progress = progress
        self.trained = 0
        self.used: dict[str, Card] = {}  # of each network that was used, as it was at last

    def load(self, recipe: R, epoch: int | None = None) -> nn.Module:
        """The network after an epoch that the recipe keeps, or the trained one.

        Where its weights are not here they are trained anew; what was measured of others, which
        may have been trained on another machine, counts until that training ends and no longer.
        """
        whole = epoch is None or epoch == recipe.epochs
        name = "last.safetensors" if whole else _kept(int(epoch or 0))
        path = self.folder / recipe.name / name
        if path.exists() and not self._is_resumable(recipe):
            self.train(recipe)
        else:
            self.used[recipe.name] = self._train_here(recipe)
        model, _ = models.load_checkpoint(path)
        return model.to(self.device)

    def history(self, recipe: R) -> list[dict[str, Any]]:
        """What happened in each epoch, accuracies among it."""
        return self.train(recipe).history

    def measured(self, recipe: R, name: str, settings: Any, measure: Callable[[], Any]) -> Any:
        """What is measured of a network, as JSON holds it: once for equal settings.

        Args:
            name: Of the kind of measurement.
            settings: Plain data that tell this measurement from others of its kind.
            measure: Makes it, plain data; NaN comes out as None.
        """
        key = f"{name}-{digest(settings)}"
        card = self.train(recipe)
        if key not in card.measured:
            found = measure()
            # Read again: `measure` may have trained anew, or measured something else.
            card = self.train(recipe).with_measured(key, plain(settings), plain(found))
            card.write(self._card_of(recipe))
            self.used[recipe.name] = card
        return card.measured[key]["value"]

    def train(self, recipe: R) -> Card:
        """Train, or go on training, unless it is done already; gives what is known of it."""
        path = self._card_of(recipe)
        card = cards.read(path)
        if card is None and path.exists() and self._has_weights(recipe):  # a damaged one
            card = self._describe(recipe, by="", where="")
        if card is None:
            card = self._train_here(recipe)
        self.used[recipe.name] = card
        return card

    def _train_here(self, recipe: R) -> Card:
        """Train, or go on training; the card of another network of this recipe is there until the
        end, then it is this one's."""
        self._check_time(f"before {recipe.name}")
        folder = self.folder / recipe.name
        write_text(folder / "recipe.json", json.dumps(dataclasses.asdict(recipe), indent=1))
        history = self._trained(recipe, folder)
        if history.stopped == LATE:
            done_epochs = f"{len(history)} of {recipe.epochs} epochs"
            raise OutOfTime(f"stopped after {done_epochs} of {recipe.name}")
        self.trained += 1
        where = machine(mixed_precision(recipe.autocast, self.device))
        # First: were it the other way round, a kill in between would train all anew.
        card = self._describe(recipe, by=commit(LAB.parent), where=where)
        (folder / _RESUME).unlink(missing_ok=True)
        return card

    def _describe(self, recipe: R, *, by: str, where: str) -> Card:
        """Write the card of trained weights: by a commit, where, both empty if not known."""
        lines = (self.folder / recipe.name / "log.jsonl").read_text().splitlines()
        history = [json.loads(line) for line in lines]
        seconds = sum(line["seconds"] for line in history)
        card = Card(dataclasses.asdict(recipe), seconds, by, where, history)
        card.write(path := self._card_of(recipe))
        return cards.read(path) or card  # as rounded, so that a resumed run has the same digits

    def _has_weights(self, recipe: Recipe) -> bool:
        last = self.folder / recipe.name / "last.safetensors"
        return last.exists() and not self._is_resumable(recipe)

    def _is_resumable(self, recipe: Recipe) -> bool:
        """Whether a training has begun and not ended."""
        return (self.folder / recipe.name / _RESUME).exists()

    def _card_of(self, recipe: Recipe) -> Path:
        if self.cards is None:
            return self.folder / recipe.name / "card.json"
        return self.cards / f"{recipe.name}.json"

    def share(self, recipes: Iterable[R], then: Callable[[R], object] = lambda _: None) -> None:
        """Train what is neither done nor being trained by another process, in this order.

        Args:
            recipes: Of the networks.
            then: What is done with each network by the process that has it in hand.

        Processes that do so with the same folder at the same time share the work. A training that
        begins with another network waits while a process has that in hand.

        Raises:
            OutOfTime: As `train` does.
        """
        left = list(recipes)
        while left:
            waiting = [recipe for recipe in left if not self._shared(recipe, then)]
            if len(waiting) == len(left):
                time.sleep(_PAUSE)
            left = waiting

    def _shared(self, recipe: Any, then: Callable[[Any], object]) -> bool:
        """Whether nothing is left to do here: done, or in another process's hands."""
        if not self._is_trained(recipe):
            self._check_time(f"before {recipe.name}")
            for earlier in recipe.after:
                self._shared(earlier, then)
                if not self._is_trained(earlier):
                    return False
        folder = self.folder / recipe.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(folder / ".training.lock")
        except Taken:
            return True
        with lock:
            self.train(recipe)
            then(recipe)
        return True

    def _is_trained(self, recipe: Recipe) -> bool:
        return self._card_of(recipe).exists()

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
