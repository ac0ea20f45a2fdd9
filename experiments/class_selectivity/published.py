"""Corrupted images as they were published, where they lie beside the data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from repsim_fast import data

from .corruptions import SEVERITIES

# Of CIFAR-10-C: as many images for each severity, one severity after the other.
CIFAR_IMAGES = 10_000
TINY_CLASSES = 200


@dataclass(frozen=True)
class Published(ABC):
    """Files of a published set of corrupted test images.

    Attributes:
        folder: Theirs.
        size: Side of the images.
    """

    folder: Path
    size: int

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Kinds of which there are files."""

    @abstractmethod
    def images(self, kind: str, severity: int, n: int) -> tuple[Tensor, Tensor]:
        """n images (N, 3, H, W) in [0, 1], and their labels; of all kinds the same ones.

        Raises:
            ValueError: Files of another form than the published ones.
        """


class CifarC(Published):
    """CIFAR-10-C: an array of all severities a kind, and the labels."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the arrays."""
        names = sorted(path.stem for path in self.folder.glob("*.npy"))
        return tuple(name for name in names if name != "labels")

    def images(self, kind: str, severity: int, n: int) -> tuple[Tensor, Tensor]:
        """The first n images."""
        images = np.load(self.folder / f"{kind}.npy", mmap_mode="r")
        labels = np.load(self.folder / "labels.npy", mmap_mode="r")
        wanted = (len(SEVERITIES) * CIFAR_IMAGES, self.size, self.size, 3)
        if images.shape != wanted or labels.shape != wanted[:1]:
            raise ValueError(
                f"{self.folder}: expected {kind}.npy {wanted} and labels.npy {wanted[:1]}, got "
                f"{images.shape} and {labels.shape}"
            )
        part = slice(first := (severity - 1) * CIFAR_IMAGES, first + min(n, CIFAR_IMAGES))
        x = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2).float() / 255
        return x, torch.from_numpy(np.array(labels[part], dtype=np.int64))


class TinyImageNetC(Published):
    """Tiny-ImageNet-C: KIND/SEVERITY/WORDNET-ID/*.JPEG; sorted identifiers number the classes, as
    in the data set."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the folders with all severities."""
        return tuple(
            sorted(
                path.name
                for path in self.folder.glob("*")
                if all((path / f"{severity}").is_dir() for severity in SEVERITIES)
            )
        )

    def images(self, kind: str, severity: int, n: int) -> tuple[Tensor, Tensor]:
        """n images drawn from all classes."""
        folder = self.folder / kind / f"{severity}"
        found = data.load(f"folder:{folder}", "test", limit=n, progress=False)
        x, y = found.tensors()
        wanted = (3, self.size, self.size)
        if len(found.classes) != TINY_CLASSES or x.shape[1:] != wanted:
            raise ValueError(
                f"{folder}: expected {TINY_CLASSES} classes of images {wanted}, got "
                f"{len(found.classes)} of {tuple(x.shape[1:])}"
            )
        return x, y


def find(dataset: str, root: Path) -> Published | None:
    """What is published of the data set's test images, if it is in its folder beside the data.

    Args:
        dataset: Name of the data set.
        root: Folder of the data sets.
    """
    known = {
        "cifar10": CifarC(root / "CIFAR-10-C", 32),
        "tiny-imagenet-20k": TinyImageNetC(root / "Tiny-ImageNet-C", 64),
    }
    found = known.get(dataset)
    return found if found is not None and found.kinds else None
