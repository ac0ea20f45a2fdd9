"""Checkpoints of a training: safetensors and JSON, written whole or not at all, no pickle.

In the folder: ``best.safetensors`` and ``last.safetensors``, the evaluated weights, and
``resume.safetensors``, all that a training needs to go on bit for bit. The random numbers of an
epoch follow from seed and epoch, so no generator state is among it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from repsim_fast._core.files import replacing
from repsim_fast.models import save_checkpoint

from .history import Epoch, History
from .state import TrainingState

RESUME = "resume.safetensors"
_HEADER = "repsim_fast_training"


def save_weights(
    path: Path, model: nn.Module, architecture: Mapping[str, Any] | None, epoch: Epoch
) -> None:
    """Weights for use; with an architecture, a file that ``models.load_checkpoint`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if architecture is None:
        _save(path, dict(model.state_dict()), {"epoch": json.dumps(epoch.entries())})
    else:
        save_checkpoint(path, model, **architecture, epoch=epoch.entries())


def save_state(path: Path, state: TrainingState, settings: Mapping[str, Any]) -> None:
    """Everything the next epoch depends on."""
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for index, entries in state.optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
    if state.average is not None:
        tensors |= {f"ema.{name}": value for name, value in state.average.state.items()}
    header = {
        "settings": dict(settings),
        "history": [asdict(epoch) for epoch in state.history.epochs],
        "answered": state.answered,
        "ema_updates": 0 if state.average is None else state.average.updates,
        "scaler": state.scaler.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, tensors, {_HEADER: json.dumps(header)})


def load_state(path: Path, state: TrainingState, settings: Mapping[str, Any]) -> None:
    """Put everything back into ``state``.

    Raises:
        ValueError: Not such a file, of a training with other settings, or of another architecture.
    """
    tensors, header = _load(path)
    _check_same_settings(path, header["settings"], settings)
    _put_into(path, "model", state.model.state_dict(), _part(tensors, "model"))
    if state.average is not None:
        _put_into(path, "EMA", state.average.state, _part(tensors, "ema"))
        state.average.updates = header["ema_updates"]
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer").items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": entries})
    if header["scaler"]:
        state.scaler.load_state_dict(header["scaler"])
    state.history = History([Epoch(**epoch) for epoch in header["history"]])
    state.answered = header["answered"]


def _check_same_settings(
    path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    differences = [
        f"{name}: {before.get(name)!r} there, {value!r} here"
        for name, value in json.loads(json.dumps(dict(settings))).items()
        if before.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{path} belongs to a training with other settings ({'; '.join(differences)}): "
            "resume with the same ones or choose another checkpoint folder"
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _put_into(
    path: Path, what: str, state: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> None:
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in saved.items()}
    if shapes != found:
        wrong = sorted(
            name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)
        )
        raise ValueError(
            f"{path} holds the {what} state of another architecture: {wrong[0]} has shape "
            f"{found.get(wrong[0], 'none')} there and {shapes.get(wrong[0], 'none')} here"
        )
    with torch.no_grad():
        for name, value in saved.items():
            state[name].copy_(value)


def _save(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    held = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    with replacing(path) as temporary:
        save_file(held, temporary, metadata)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            # Cloned: a tensor at the file's odd addresses would round differently in kernels.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if header is None:
        raise ValueError(f"{path} is not a training checkpoint of repsim_fast")
    return tensors, json.loads(header)
