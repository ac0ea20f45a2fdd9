"""What questions work with: networks by recipe, comparisons of them, places for results."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from repsim_fast import data
from repsim_fast.analysis.estimates import Estimate, share

from . import datasets
from .comparisons import Comparison, LayerRule, compare_networks
from .datasets import DataSet
from .files import digest
from .networks import Networks
from .presets import Preset
from .recipes import Recipe, Training
from .threats import Threat

# Training images that the batch norms of untrained networks normalise by.
_CALIBRATED = 1000

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
R = TypeVar("R", bound=Recipe)
P = TypeVar("P", bound=Preset)


@dataclass(frozen=True)
class View(Generic[R]):
    """A network, at an epoch, looking at benign images or at those of an attack on it.

    Attributes:
        name: Label in pictures and tables.
        epoch: One that the recipe keeps; None for the trained network.
        threat: Attack on this very network; None for benign images.
        strength: Multiple of the attack's radius.
    """

    name: str
    recipe: R
    epoch: int | None = None
    threat: str | None = None
    strength: float = 1.0


class Lab(ABC, Generic[R, P]):
    """Data, networks and comparisons of one preset, all kept so that an interrupted run goes on.

    Args:
        preset: Sizes.
        work: Folder of checkpoints and comparisons; not for version control.
        cards, deadline: See ``Networks``.
        progress: Show progress bars.
    """

    def __init__(
        self,
        preset: P,
        work: Path,
        *,
        cards: Path | None = None,
        deadline: float | None = None,
        progress: bool = True,
    ) -> None:
        self.preset = preset
        self.work = work
        self.dataset = datasets.find(preset.dataset, size=preset.image_size)
        self.threats = self.threats_of(self.dataset)
        size = self.dataset.size
        self.train_data, self.test_data = (
            data.load(self.dataset.spec, split, size=size, limit=limit, progress=progress)
            for split, limit in (("train", preset.train_images), ("test", None))
        )
        if preset.test_images < len(self.test_data):
            self.test_data = self.test_data.subset(preset.test_images)
        self.networks = Networks(
            work / "networks",
            self.training,
            device=preset.device,
            cards=cards,
            deadline=deadline,
            progress=progress,
        )
        self._examples: dict[str, Tensor] = {}

    @abstractmethod
    def threats_of(self, dataset: DataSet) -> Mapping[str, Threat]:
        """The threat models, at radii that suit a data set; the usual one first."""

    @abstractmethod
    def training(self, recipe: R) -> Training:
        """What a recipe asks for."""

    @property
    @abstractmethod
    def layers(self) -> LayerRule:
        """The layers that are compared."""

    @property
    def training_set(self) -> str:
        """Name of the training images, for recipes."""
        return f"{self.dataset.name} {len(self.train_data)}"

    def images(self, trained_on: R | None = None) -> tuple[Tensor, Tensor]:
        """Test images and labels, or those that a recipe is trained on (as many at most)."""
        held = self.test_data
        if trained_on is not None:
            everything = len(self.train_data)
            held = self.train_data.subset(min(trained_on.images or everything, len(held)))
        return held.tensors()

    def model(self, view: View[R]) -> nn.Module:
        """The network of a view; an untrained one normalises by statistics of training images.

        The averages that its batch norms begin with, mean 0 and variance 1, are those of no data:
        with them activations grow or shrink with depth, and CKA is of another network than the one
        that training begins with.
        """
        network = self.networks.load(view.recipe, view.epoch)
        if view.epoch == 0:
            images, _ = self.train_data.subset(min(_CALIBRATED, len(self.train_data))).tensors()
            update_bn(
                torch.split(images, self.preset.compare_batch),
                network,
                torch.device(self.preset.device),
            )
        return network

    def examples(self, view: View[R]) -> Tensor:
        """The test images as a view sees them, on the CPU.

        Attacks take their gradients in the precision of the training, at a fraction of the cost;
        what they found is judged, and compared, in float32.
        """
        x, y = self.images()
        if view.threat is None:
            return x
        # Views differ in name where they share what they look at.
        key = digest([dataclasses.asdict(view.recipe), view.epoch, view.threat, view.strength])
        if key not in self._examples:
            attack = self.threats[view.threat].build(strength=view.strength, seed=0)
            self._examples[key] = self._attacked(self.model(view), attack, x, y)
        return self._examples[key]

    def _attacked(self, model: nn.Module, attack: Attack, x: Tensor, y: Tensor) -> Tensor:
        where, size = self.preset.device, self.preset.compare_batch
        with self._precision():
            parts = [
                attack(model, a.to(where), b.to(where)).cpu()
                for a, b in zip(torch.split(x, size), torch.split(y, size), strict=True)
            ]
        return torch.cat(parts)

    def shares(self, model: nn.Module, attack: Attack, x: Tensor, y: Tensor) -> dict[str, float]:
        """Clean and robust accuracy of a network, as `accuracy` has them of a recipe's."""
        return self._shares(model, x, self._attacked(model, attack, x, y), y)

    def accuracy(
        self, recipe: R, threat: str | None = None, strength: float = 1.0
    ) -> dict[str, Estimate]:
        """Clean and robust accuracy on the test images, with binomial standard errors.

        Robust counts images that are classified correctly benign and attacked, by default by the
        usual threat model.
        """
        threat = next(iter(self.threats)) if threat is None else threat
        held = self.networks.measured(
            recipe,
            "accuracy",
            [threat, strength, self.preset.test_images, self.dataset.name],
            lambda: self._accuracy(recipe, threat, strength),
        )
        return {name: share(value, held["images"]) for name, value in held["shares"].items()}

    def _accuracy(self, recipe: R, threat: str, strength: float) -> dict[str, Any]:
        model = self.networks.load(recipe)
        attacked = self.examples(View("", recipe, threat=threat, strength=strength))
        x, y = self.images()
        return {"shares": self._shares(model, x, attacked, y), "images": len(y)}

    def _shares(self, model: nn.Module, x: Tensor, attacked: Tensor, y: Tensor) -> dict[str, float]:
        right = self._correct(model, x, y)
        robust = right & self._correct(model, attacked, y)
        return {"clean": float(right.float().mean()), "robust": float(robust.float().mean())}

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        half = self.preset.half
        if half is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.preset.device).type, half)

    def _correct(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [
                model(part.to(self.preset.device)).argmax(1).cpu() for part in torch.split(x, 1000)
            ]
        return torch.cat(parts) == y

    def compare(self, views: Sequence[View[R]], trained_on: R | None = None) -> Comparison:
        """CKA between all layers of all views on the same images, see ``images``.

        Images of attacks are made once before.
        """
        preset = self.preset
        settings = [
            [_looked_at(view) for view in views],
            trained_on and dataclasses.asdict(trained_on),
            preset.test_images, preset.compare_batch, self.dataset.name,
        ]  # fmt: skip
        path = self.work / "comparisons" / f"{digest(settings)}.safetensors"
        if not path.exists():
            compare_networks(
                {view.name: self.model(view) for view in views},
                self.images(trained_on)[0],
                {view.name: self.examples(view) for view in views if view.threat is not None},
                layers=self.layers,
                batch_size=preset.compare_batch,
                device=preset.device,
            ).save(path)
        return Comparison.load(path)  # as rounded, so that a resumed run has the same digits


def _looked_at(view: View[Any]) -> dict[str, Any]:
    """What tells a view from others in the name of a comparison."""
    own = dataclasses.asdict(view)
    return {**own, "calibrated": _CALIBRATED} if view.epoch == 0 else own
