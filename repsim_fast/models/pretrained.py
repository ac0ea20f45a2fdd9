"""Trained networks that come with the package: float16 weights, and all that is known of them."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.model_state import unwrap

from .checkpoint import load_checkpoint, save_checkpoint

_FOLDER = Path(__file__).parent / "weights"
_SUFFIX = ".safetensors"


def available_pretrained() -> list[str]:
    """Names that `load_pretrained` knows."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


def load_pretrained(
    name: str, *, folder: str | os.PathLike[str] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A trained network of the package, from its name.

    Args:
        name: One of `available_pretrained`, such as "cifar10-wrn-16-2-robust".
        folder: Where the files are; default: the package's own.

    Returns:
        The model, on the CPU, in evaluation mode and float32; and what its file says: architecture,
        classes, recipe, accuracies with the attack, the commit that trained it, the checksum.

    Raises:
        ValueError: No such network, or a file whose weights are not those of its checksum.

    Example:
        >>> from repsim_fast import models
        >>> for name in models.available_pretrained():
        ...     network, about = models.load_pretrained(name)
        ...     assert about["robust_accuracy"] <= about["clean_accuracy"]
    """
    path = (_FOLDER if folder is None else Path(folder)) / f"{name}{_SUFFIX}"
    if Path(name).name != name or not path.is_file():
        known = available_pretrained()
        raise ValueError(
            f"no pretrained network {name!r}; there are {', '.join(known) if known else 'none'}"
        )
    model, about = load_checkpoint(path)
    found = _checksum(model.state_dict())
    if found != about.get("checksum"):
        raise ValueError(
            f"{path}: the weights have checksum {found[:12]}..., the header says "
            f"{str(about.get('checksum'))[:12]}...: the file is damaged or was changed"
        )
    return model.float(), about


def save_pretrained(path: str | os.PathLike[str], model: nn.Module, **about: Any) -> None:
    """Write a network for `load_pretrained`, in float16, with the checksum of its weights.

    Args:
        path: File to write, ``NAME.safetensors``.
        model: A network of this package.
        about: name, num_classes and in_channels as for `save_checkpoint`, and what else is known.

    Raises:
        ValueError: A weight that float16 cannot hold, or as `save_checkpoint`.
    """
    # The module under wrappers such as torch.compile's: they do not survive a deep copy.
    halved = copy.deepcopy(unwrap(model)).cpu().half()
    for name, value in halved.state_dict().items():
        if not torch.isfinite(value).all():
            raise ValueError(f"model: {name} holds numbers beyond the range of float16")
    save_checkpoint(path, halved, **about, checksum=_checksum(halved.state_dict()))


def _checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, kinds, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
