"""Classifiers of torchvision and timm, `torchvision:NAME` and `timm:NAME`, untrained."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from types import ModuleType

from torch import nn


def build_torchvision(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a torchvision classifier without weights.

    Raises:
        ImportError: torchvision is missing or does not fit this torch.
        ValueError: no such classifier, or images that have not 3 channels.
    """
    models = _package("torchvision").models
    _check_name("torchvision", name, models.list_models(module=models))
    if in_channels != 3:
        raise ValueError(f"torchvision:{name} takes 3 channels, got in_channels={in_channels}")
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    return model


def build_timm(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a timm model without weights.

    Raises:
        ImportError: timm is missing or does not fit this torch.
        ValueError: no such model.
    """
    timm = _package("timm")
    _check_name("timm", name, timm.list_models())
    model: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=num_classes, in_chans=in_channels
    )
    return model


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name}:NAME needs the package {name}: pip install {name}") from error
    except Exception as error:  # a torchvision built for another torch fails in many ways
        raise ImportError(f"{name} is installed but does not fit this torch: {error}") from error


def _check_name(package: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        close = ", ".join(difflib.get_close_matches(name, known)) or ", ".join(known[:5]) + ", ..."
        raise ValueError(f"{package} has no classifier {name!r}; there are: {close}")
