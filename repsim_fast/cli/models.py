"""Models as they are named on the command line: checkpoints and architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import typer
from torch import nn

from repsim_fast.data import ImageData
from repsim_fast.models import available, build, load_checkpoint, load_pretrained

_PRETRAINED = "pretrained:"


class Opened(NamedTuple):
    """A network in evaluation mode, and a line about it for a table."""

    module: nn.Module
    about: dict[str, Any]


def open_models(arguments: Sequence[str], data: ImageData, *, seed: int) -> dict[str, Opened]:
    """Networks by a short name.

    Args:
        arguments: Each the path of a checkpoint, "pretrained:NAME" for a network that comes with
            the package, or the name of an architecture, which is then built with weights drawn
            from ``seed`` plus its position.
        data: Images they are to be run on.
        seed: Of the weights of untrained networks.

    Raises:
        ValueError: An argument is neither, or a network that does not take these images.
        FileNotFoundError: A checkpoint that is not there.
    """
    models = {}
    for position, argument in enumerate(arguments):
        name = short_names(arguments)[position]
        if (
            argument.startswith(_PRETRAINED)
            or Path(argument).is_file()
            or (argument.endswith(".safetensors"))
        ):
            module, header = _load(argument, data)
            models[name] = Opened(module, {"model": name, "file": argument, **_training(header)})
        else:
            drawn = f"none: random weights (seed {seed + position})"
            about = {"file": "-", **_training({"name": argument}), "training": drawn}
            models[name] = Opened(_build(argument, data, seed + position), {"model": name, **about})
            typer.echo(f"{argument} is untrained: its weights are random (seed {seed + position})")
    return models


def _training(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header of a checkpoint says of its training, as far as it does."""
    options = header.get("method_options", {})
    steps = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in options.items()
    ]
    if "epochs" in header:
        steps.append(f"{header['epochs']} epochs")
    if header.get("ema") is not None:
        steps.append(f"ema {header['ema']:g}")
    return {
        "network": header["name"],
        "training": ", ".join([header.get("method", "unknown"), *steps]),
        "clean accuracy": header.get("clean_accuracy"),
        "robust accuracy": header.get("robust_accuracy"),
        "attack": header.get("attack", "-"),
    }


def short_names(arguments: Sequence[str]) -> list[str]:
    """File names without suffix, with as many folders as it takes to tell them apart."""
    parts = [
        (*Path(argument).parts[:-1], Path(argument).name.removesuffix(".safetensors"))
        for argument in arguments
    ]
    names: list[str] = []
    for own in parts:
        others = [other for other in set(parts) if other != own]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        name = "/".join(own[-length:])
        repeats = sum(earlier == own for earlier in parts[: len(names)])
        names.append(name if not repeats else f"{name} ({repeats + 1})")
    return names


def load(argument: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint's path or of "pretrained:NAME", and its header.

    Raises:
        ValueError: It is no such file or name.
        FileNotFoundError: A checkpoint that is not there.
    """
    if argument.startswith(_PRETRAINED):
        return load_pretrained(argument.removeprefix(_PRETRAINED))
    return load_checkpoint(argument)


def _load(path: str, data: ImageData) -> tuple[nn.Module, dict[str, Any]]:
    model, about = load(path)
    check_channels(path, about, data)
    return model, about


def check_channels(model: str, about: Mapping[str, Any], data: ImageData) -> None:
    """Images of as many channels as the header says.

    Raises:
        ValueError: Others.
    """
    channels = data.images.shape[1]
    if about["in_channels"] != channels:
        raise ValueError(
            f"{model} takes images with {about['in_channels']} channels, {data.name} has {channels}"
        )


def _build(name: str, data: ImageData, seed: int) -> nn.Module:
    try:
        model = build(
            name, num_classes=len(data.classes), in_channels=data.images.shape[1], seed=seed
        )
    except ValueError as error:
        if not str(error).startswith("unknown model"):
            raise
        raise ValueError(
            f"{name!r} is neither a checkpoint file nor a model; models are "
            f"{', '.join(available())}"
        ) from None
    return model.eval()
