"""Common corruptions (Hendrycks & Dietterich, 2019), through the imagecorruptions package."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repsim_fast._core.pixels import unit_range
from repsim_fast._core.randomness import Stream

# Smallest side that the package accepts.
_SMALLEST = 32


class Corruption:
    """A common corruption as a callable (model, x, y) -> x; the model and labels are not used.

    Severities are those of ImageNet-C, which is what the package implements; CIFAR-10-C uses other
    constants. Images go through 8 bits, as in the published data sets.

    Args:
        name: Such as "gaussian_noise", "defocus_blur", "fog"; see ``names()``.
        severity: 1 to 5.
        seed: Int or ``torch.Generator``; the stream advances with every call. One corruption,
            "glass_blur", draws some numbers where no seed reaches them.

    Raises:
        ImportError: The package is missing.
        ValueError: Unknown name, severity out of range; on call: images smaller than 32 pixels or
            with a number of channels other than 1 or 3.
    """

    def __init__(
        self, name: str, *, severity: int = 3, seed: int | torch.Generator | None = None
    ) -> None:
        if name not in names():
            raise ValueError(f"name must be one of {names()}, got {name!r}")
        if severity not in range(1, 6):
            raise ValueError(f"severity must be 1, 2, 3, 4 or 5, got {severity}")
        self.name = name
        self.severity = severity
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return f"Corruption({self.name!r}, severity={self.severity})"

    def __call__(self, model: Any, x: Tensor, y: Tensor) -> Tensor:
        """Corrupted ``x`` (N, C, H, W), float32 in [0, 1]."""
        if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < _SMALLEST:
            raise ValueError(
                f"x must be (N, 1 or 3, H, W) with sides of at least {_SMALLEST} pixels, "
                f"got {tuple(x.shape)}"
            )
        pixels = (x.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        # The package draws from numpy's global generator: lend it our stream.
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(self._stream.seed() % 2**32)  # noqa: NPY002
        try:
            corrupted = [self._corrupted(image) for image in pixels]
        finally:
            np.random.set_state(state)  # noqa: NPY002
        images = torch.from_numpy(np.stack(corrupted)).permute(0, 3, 1, 2)[:, : x.shape[1]]
        return unit_range(images.to(x.device))

    def _corrupted(self, image: Any) -> Any:
        """An image of 8 bits; spatter without a drop, as small images have, leaves it as it is.

        The package divides by the largest drop, and makes the image black where there is none.
        """
        with np.errstate(invalid="raise" if self.name == "spatter" else "warn"):
            try:
                return _package().corrupt(image, corruption_name=self.name, severity=self.severity)
            except FloatingPointError:
                return np.broadcast_to(image, (*image.shape[:2], 3))


def names(subset: str = "all") -> list[str]:
    """Names of the corruptions: "all" 19, "common" the benchmark's 15, "validation" 4."""
    return list(_package().get_corruption_names(subset))


def _package() -> ModuleType:
    try:
        return importlib.import_module("imagecorruptions")
    except ModuleNotFoundError as error:
        raise ImportError(
            "common corruptions need the imagecorruptions package: "
            f"pip install imagecorruptions-imaug (missing: {error.name})"
        ) from None
