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

from .ema import WeightAverage
from .history import Epoch, History
from .overfitting import Probe

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


def save_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    scaler: torch.amp.GradScaler,
    history: History,
    config: Mapping[str, Any],
    *,
    answered: bool,
) -> None:
    """Everything the next epoch depends on; ``answered``: ``on_epoch`` need not be asked again."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
    if average is not None:
        tensors |= {f"ema.{name}": value for name, value in average.state.items()}
    header = {
        "config": dict(config),
        "history": [asdict(epoch) for epoch in history.epochs],
        "ema_updates": 0 if average is None else average.updates,
        "scaler": scaler.state_dict(),
        "answered": answered,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, tensors, {_HEADER: json.dumps(header)})


def load_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
    scaler: torch.amp.GradScaler,
    config: Mapping[str, Any],
) -> tuple[History, bool]:
    """Put everything back; gives the history so far and whether ``on_epoch`` has answered.

    Raises:
        ValueError: Not such a file, of a training with other settings, or of another architecture.
    """
    tensors, header = _load(path)
    before = header["config"]
    differences = [
        f"{name}: {before.get(name)!r} there, {value!r} here"
        for name, value in json.loads(json.dumps(dict(config))).items()
        if before.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{path} belongs to a training with other settings ({'; '.join(differences)}): "
            "resume with the same ones or choose another checkpoint folder"
        )
    _put_into(path, "model", model.state_dict(), _part(tensors, "model"))
    if average is not None:
        _put_into(path, "EMA", average.state, _part(tensors, "ema"))
        average.updates = header["ema_updates"]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if header["scaler"]:
        scaler.load_state_dict(header["scaler"])
    return History([Epoch(**epoch) for epoch in header["history"]]), header["answered"]


def probes(history: History) -> list[Probe]:
    """The overfitting detector's figures of a history."""
    return [
        Probe(epoch.fgsm_accuracy, epoch.pgd_accuracy)
        for epoch in history.epochs
        if epoch.fgsm_accuracy is not None and epoch.pgd_accuracy is not None
    ]


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
