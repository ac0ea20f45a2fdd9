"""Trained networks in one safetensors file each: weights, and in the header what they are of."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .registry import build

_HEADER = "repsim_fast"
_ARCHITECTURE = {"name": str, "num_classes": int, "in_channels": int}


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    name: str,
    num_classes: int,
    in_channels: int = 3,
    **metadata: Any,
) -> None:
    """Write a model's weights and what is needed to build it again.

    The file is written under a temporary name and renamed, so that a file already at `path`
    stays whole until the new one is.

    Args:
        path: file to write, by habit *.safetensors; its folder must exist.
        model: what `build(name, num_classes=num_classes, in_channels=in_channels)` returned.
        name: name of its architecture.
        num_classes: its number of outputs.
        in_channels: its channels.
        **metadata: anything JSON can hold, given back by `load_checkpoint`.

    Raises:
        TypeError: metadata that JSON cannot hold.
        ValueError: weights that do not fit the architecture, or no such architecture.
        ImportError: the package of a "torchvision:" or "timm:" architecture is missing.
        OSError: the file cannot be written.
    """
    described = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **metadata}
    try:
        header = json.dumps(described)
    except TypeError as error:
        raise TypeError(f"metadata must be what JSON can hold: {error}") from None
    check_architecture("model", model, described)
    # Copies, because safetensors refuses tensors that share memory or are not contiguous.
    tensors = {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    _write(Path(path), save(tensors, {_HEADER: header}))


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a checkpoint and load its weights.

    Returns:
        The model, on the CPU and in evaluation mode, with the dtypes of the file; and all that
        was saved with it: name, num_classes, in_channels and the metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this package, or weights that do not fit the architecture.
        ImportError: the package of a "torchvision:" or "timm:" architecture is missing.
    """
    described, state = _read(Path(path))
    model = build(**{key: described[key] for key in _ARCHITECTURE}, seed=0)
    _check_fit(str(path), _shapes(model), {key: x.shape for key, x in state.items()}, described)
    model.load_state_dict(state, assign=True)  # assign keeps the dtypes of the file
    return model.eval(), described


def check_architecture(argument: str, model: nn.Module, architecture: Mapping[str, Any]) -> None:
    """Check that `load_checkpoint` could build `model` again.

    Raises:
        TypeError: an entry of the architecture of another type.
        ValueError: weights that do not fit the architecture, or no such architecture.
        ImportError: the package of a "torchvision:" or "timm:" architecture is missing.
    """
    for key, kind in _ARCHITECTURE.items():
        if not isinstance(architecture[key], kind):
            raise TypeError(
                f"{key} of the architecture must be {kind.__name__}, got {architecture[key]!r}"
            )
    wanted = _built(*(architecture[key] for key in _ARCHITECTURE))
    _check_fit(argument, wanted, _shapes(model), architecture)


# Kept, as a training asks for the same one after each epoch. Built on the CPU, since the meta
# device would import torch's compiler, which takes longer than most networks.
@functools.lru_cache(maxsize=16)
def _built(name: str, num_classes: int, in_channels: int) -> dict[str, torch.Size]:
    return _shapes(build(name, num_classes=num_classes, in_channels=in_channels, seed=0))


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            # Cloned, because at the file's odd addresses kernels round differently.
            state = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        described: dict[str, Any] = json.loads(header or "{}")
        missing = [key for key in _ARCHITECTURE if key not in described]
    except (ValueError, TypeError):
        missing = [_HEADER]
    if missing:
        raise ValueError(
            f"{path} is not a checkpoint of repsim_fast: its header lacks {', '.join(missing)}"
        )
    return described, state


def _check_fit(
    what: str,
    wanted: Mapping[str, torch.Size],
    got: Mapping[str, torch.Size],
    architecture: Mapping[str, Any],
) -> None:
    problems = [f"{key} is missing" for key in wanted.keys() - got.keys()]
    problems += [f"{key} is unknown" for key in got.keys() - wanted.keys()]
    problems += [
        f"{key} must have shape {tuple(wanted[key])}, got {tuple(got[key])}"
        for key in wanted.keys() & got.keys()
        if wanted[key] != got[key]
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3]) + ("; ..." if len(problems) > 3 else "")
        raise ValueError(
            f"{what}: the weights do not fit {architecture['name']} with num_classes="
            f"{architecture['num_classes']}, in_channels={architecture['in_channels']}: {shown}"
        )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a crash could leave the new name with half a file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
