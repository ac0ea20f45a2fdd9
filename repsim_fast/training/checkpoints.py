"""Checkpoints of a training: safetensors and JSON, written whole or not at all, no pickle.

In the folder: ``best.safetensors`` and ``last.safetensors``, the evaluated weights, and
``resume.safetensors``, all that a training needs to go on bit for bit. The random numbers of an
epoch follow from seed and epoch, so no generator state is among it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core import headers
from repsim_fast._core.model_state import device_of, unwrap
from repsim_fast._core.tensor_files import read_metadata, read_tensors, write_tensors
from repsim_fast.models import save_checkpoint
from repsim_fast.pruning import unmasked

from . import optimizer_state
from .history import Epoch, History
from .state import TrainingState

RESUME = "resume.safetensors"
FILES = ("best.safetensors", "last.safetensors", RESUME, "log.jsonl")
_HEADER = "repsim_fast_training"
_FIGURE = headers.optional(headers.number())
_EPOCH = headers.record(
    {"epoch": headers.whole(0), "seconds": _FIGURE},
    {
        **dict.fromkeys(("loss", "train_accuracy", "learning_rate"), headers.number()),
        **dict.fromkeys(("clean_accuracy", "robust_accuracy"), _FIGURE),
        **dict.fromkeys(("fgsm_accuracy", "pgd_accuracy"), _FIGURE),
        **dict.fromkeys(("accuracies", "figures"), headers.named(headers.number())),
    },
)
_SCHEMA = headers.record(
    {
        "settings": headers.record(
            {"epochs": headers.whole(1)}, {"evaluation": headers.named(headers.free)}
        ),
        "history": headers.listed(_EPOCH),
        "answered": headers.truth,
        "optimizer": optimizer_state.SCHEMA,
        "ema_updates": headers.whole(0),
        "scaler": headers.named(headers.number()),
    }
)


def save_weights(
    path: Path, model: nn.Module, architecture: Mapping[str, Any] | None, epoch: Epoch
) -> None:
    """Weights for use; with an architecture, a file that ``models.load_checkpoint`` reads, of a
    pruned model with zeros in place of masks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    model = unwrap(model)  # the names of weights are not to say how it was run
    if architecture is None:
        _save(path, dict(model.state_dict()), {"epoch": json.dumps(epoch.entries())})
    else:
        save_checkpoint(path, unmasked(model), **architecture, epoch=epoch.entries())


def save_state(path: Path, state: TrainingState, settings: Mapping[str, Any]) -> None:
    """Everything the next epoch depends on."""
    weights, passing = unwrap(state.model).state_dict(), _passing(state.model)
    carried = optimizer_state.tensors_of(state.optimizer)
    tensors = {f"model.{name}": value for name, value in weights.items()}
    tensors |= {f"passing.{name}": value for name, value in passing.items()}
    tensors |= {f"optimizer.{name}": value for name, value in carried.items()}
    if state.average is not None:
        tensors |= {f"ema.{name}": value for name, value in state.average.state.items()}
    header = {
        "settings": dict(settings),
        "history": [asdict(epoch) for epoch in state.history.epochs],
        "answered": state.answered,
        "optimizer": optimizer_state.about(state.optimizer),
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
    history = _history(path, header)
    _put_into(path, "model", unwrap(state.model).state_dict(), _part(tensors, "model"))
    for name, value in _part(tensors, "passing").items():
        _put_passing(path, state.model, name, value)
    if state.average is not None:
        _put_into(path, "EMA", state.average.state, _part(tensors, "ema"))
        state.average.updates = header["ema_updates"]
    carried = _part(tensors, "optimizer")
    optimizer_state.put_back(str(path), state.optimizer, carried, header["optimizer"])
    if header["scaler"]:
        state.scaler.load_state_dict(header["scaler"])
    state.history = history
    state.answered = header["answered"]


def unfinished(path: Path) -> str | None:
    """How far the training got whose state lies at ``path``; None if it is whole or none is there.

    Raises:
        ValueError: Not such a file.
    """
    if not path.exists():
        return None
    header = _header(path, read_metadata(path))
    done, wanted = len(header["history"]), header["settings"]["epochs"]
    return f"{done} of {wanted} epochs" if done < wanted else None


def mark(path: Path) -> str | None:
    """What tells the state at ``path`` from that of any other training; None without one."""
    if not path.exists():
        return None
    return hashlib.sha256(read_metadata(path).get(_HEADER, "").encode()).hexdigest()[:32]


def _history(path: Path, header: Mapping[str, Any]) -> History:
    try:
        history = History([Epoch(**epoch) for epoch in header["history"]])
    except TypeError as error:
        raise ValueError(f"{path} holds no records of epochs: {error}") from error
    if [epoch.epoch for epoch in history.epochs] != list(range(len(history))):
        raise ValueError(f"{path}: expected epochs 0 to {len(history) - 1}, got others")
    return history


def _check_same_settings(
    path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    now = json.loads(json.dumps(dict(settings)))
    measured = (before.get("evaluation"), now.pop("evaluation", {}))
    for name in ("kept_weights", "normalization", "built_method"):
        if name not in before:  # of no mask, or a file of an earlier build does not say
            now.pop(name, None)
    before = {name: value for name, value in before.items() if name != "evaluation"}
    if _in_order(before.get("method")) == _in_order(now["method"]):
        before["method"] = now["method"]
    differences = _differences(before, now) + _measured_otherwise(*measured)
    if differences:
        raise ValueError(
            f"{path} belongs to a training with other settings ({'; '.join(differences)}): "
            "resume with the same ones or choose another checkpoint folder"
        )


def _in_order(method: object) -> list[str]:
    """Name and options of a method, "NAME, OPTION=VALUE, ...", whose order says nothing."""
    parts, depth = [""], 0
    for letter in str(method):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    name, *options = (part.strip() for part in parts)
    return [name, *sorted(options)]


def _measured_otherwise(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    if before is None:  # a file of an earlier build does not say
        return []
    if before.get("detector") is None:  # one may come later
        before = {**before, "detector": now.get("detector")}
    return [f"evaluation {text}" for text in _differences(before, now)]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} here"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]


def _passing(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that are no part of the state dict, which the next pass may yet depend on."""
    held = {
        f"{prefix}.{name}" if prefix else name: module._buffers[name]
        for prefix, module in unwrap(model).named_modules()
        for name in sorted(module._non_persistent_buffers_set)
    }
    return {name: value for name, value in held.items() if value is not None}


def _put_passing(path: Path, model: nn.Module, name: str, value: Tensor) -> None:
    """Such a buffer put back, of whatever shape: many are made anew in passes of other sizes."""
    prefix, _, own = name.rpartition(".")
    modules = dict(unwrap(model).named_modules())
    if prefix not in modules or own not in modules[prefix]._buffers:
        raise ValueError(f"{path} holds a buffer that the model has not: {name[:80]!r}")
    now = modules[prefix]._buffers[own]
    modules[prefix]._buffers[own] = value.to(device_of(model) if now is None else now.device)


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
    write_tensors(path, held, metadata)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata, tensors = read_tensors(path)
    return tensors, _header(path, metadata)


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _HEADER not in metadata:
        raise ValueError(f"{path} is not a training checkpoint of repsim_fast")
    header: dict[str, Any] = headers.parsed(metadata[_HEADER], _SCHEMA, str(path))
    return header
