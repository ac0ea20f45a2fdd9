"""Models as they are named on the command line: checkpoints and architectures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from torch import nn

from repsim_fast.data import ImageData
from repsim_fast.models import available, build, load_checkpoint


def open_models(arguments: Sequence[str], data: ImageData, *, seed: int) -> dict[str, nn.Module]:
    """Networks by a short name, in evaluation mode.

    Args:
        arguments: Each the path of a checkpoint or the name of an architecture, which is then
            built with weights drawn from ``seed`` plus its position.
        data: Images they are to be run on.
        seed: Of the weights of untrained networks.

    Raises:
        ValueError: An argument is neither, or a network that does not take these images.
        FileNotFoundError: A checkpoint that is not there.
    """
    models = {}
    for position, (name, argument) in enumerate(
        zip(short_names(arguments), arguments, strict=True)
    ):
        if Path(argument).is_file() or argument.endswith(".safetensors"):
            models[name] = _load(argument, data)
        else:
            models[name] = _build(argument, data, seed + position)
            typer.echo(f"{argument} is untrained: its weights are random (seed {seed + position})")
    return models


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


def _load(path: str, data: ImageData) -> nn.Module:
    model, about = load_checkpoint(path)
    channels = data.images.shape[1]
    if about["in_channels"] != channels:
        raise ValueError(
            f"{path} takes images with {about['in_channels']} channels, {data.name} has {channels}"
        )
    return model


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
