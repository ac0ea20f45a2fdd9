"""Models as they are named on the command line: checkpoints, weights and architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from torch import nn

from repsim_fast.data import ImageData
from repsim_fast.data.classes import are_named, difference, numbers_in
from repsim_fast.models.named import SUFFIXES, Opened, brings_its_own, open_model

if TYPE_CHECKING:
    from .options import Inputs

Normalisation = tuple["list[float] | None", "list[float] | None"]
"""Mean and standard deviation of each channel, from the command line."""


class Shown(NamedTuple):
    """A network in evaluation mode, and a line about it for a table."""

    module: nn.Module
    about: dict[str, Any]


def open_published(arguments: Sequence[str], given: Normalisation) -> dict[str, Opened]:
    """Those of the networks that come with published weights, which need to know of no data."""
    mean, std = given
    return {
        name: open_model(name, mean=mean, std=std)
        for name in dict.fromkeys(arguments)
        if brings_its_own(name)
    }


def size_for(networks: Mapping[str, Mapping[str, Any]], *, say: bool = True) -> int | None:
    """The size of images that those with published weights want, said; None where they want none
    or different ones, which is said, too.

    Args:
        networks: What is known of each, by its name of ``models.load``.
        say: Of several processes one says it.
    """
    of_each = {name: about.get("size") for name, about in networks.items() if brings_its_own(name)}
    wanted = {name: int(size) for name, size in of_each.items() if size}
    sizes = sorted(set(wanted.values()))
    if not sizes:
        return None
    if len(sizes) > 1:
        text = "images as they are: " + ", ".join(f"{n} wants {s} x {s}" for n, s in wanted.items())
        text += " (--size brings them to one size)"
    else:
        text = f"images at {sizes[0]} x {sizes[0]}, the size of {', '.join(wanted)}"
        text += " (--size changes it)"
    if say:
        typer.echo(text)
    return sizes[0] if len(sizes) == 1 else None


def open_models(
    arguments: Sequence[str],
    data: Inputs,
    *,
    seed: int,
    given: Normalisation = (None, None),
    published: Mapping[str, Opened] | None = None,
    say: bool = True,
) -> dict[str, Shown]:
    """Networks by a short name.

    Args:
        arguments: Each a name of `models.load`. Untrained ones have weights drawn from ``seed``
            plus their position.
        data: Images they are to be run on.
        seed: Of the weights of untrained networks.
        given: What images are normalised by for networks that were not trained by this package
            and whose own configuration does not say it.
        published: Networks that are open already.
        say: Whether this process says which are untrained or see images as they are.

    Raises:
        ValueError: An argument is no such name, or a network that does not take these images.
        FileNotFoundError: A file that is not there.
    """
    shown = {}
    for position, argument in enumerate(arguments):
        name = short_names(arguments)[position]
        opened = (published or {}).get(argument) or _open(argument, data, seed + position, given)
        check_channels(argument, opened.about, data)
        about = _training(opened.about)
        if not isinstance(data, ImageData) and opened.about.get("mean") is None:
            about["input"] = "-"  # tokens and other arrays go in as they are
        if "weights" in opened.about and opened.about["weights"] is None:
            about["training"] = f"none: random weights (seed {seed + position})"
            if say:
                random = f"its weights are random (seed {seed + position})"
                typer.echo(f"{argument} is untrained: {random}")
        if say:
            say_as_they_are(argument, opened.about, data)
        file = argument if opened.about.get("weights", "") is not None else "-"
        shown[name] = Shown(opened.model, {"model": name, "file": file, **about})
    return shown


def _open(argument: str, data: Inputs, seed: int, given: Normalisation) -> Opened:
    untrained = "=" not in argument and not is_checkpoint(argument)
    mean, std = (None, None) if is_checkpoint(argument) else given
    images = data if untrained and isinstance(data, ImageData) else None
    return open_model(
        argument,
        num_classes=None if images is None else len(images.classes),
        in_channels=None if images is None else images.images.shape[1],
        mean=mean,
        std=std,
        seed=seed if untrained else None,
    )


def is_checkpoint(argument: str) -> bool:
    """Whether it names a file of this package, which says all of its network."""
    if argument.startswith("pretrained:"):
        return True
    is_file = Path(argument).is_file() and not argument.endswith(".py")
    return is_file or ("=" not in argument and argument.endswith(SUFFIXES))


def say_as_they_are(argument: str, about: Mapping[str, Any], data: Inputs) -> None:
    """Say that weights of another origin see images that are not normalised."""
    if "=" in argument and about.get("mean") is None and isinstance(data, ImageData):
        typer.echo(
            f"{argument} sees images in [0, 1]; where it was trained on normalised ones, --mean "
            "and --std say how"
        )


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
    weights = header.get("weights")
    return {
        "network": header["name"],
        "training": ", ".join([header.get("method", weights or "unknown"), *steps]),
        "input": _input(header),
        "clean accuracy": header.get("clean_accuracy"),
        "robust accuracy": header.get("robust_accuracy"),
        "attack": header.get("attack", "-"),
    }


def _input(header: Mapping[str, Any]) -> str:
    if header.get("mean") is None:
        return "images in [0, 1]"
    mean, std = (", ".join(f"{v:g}" for v in header[field]) for field in ("mean", "std"))
    return f"normalised: mean {mean}; std {std}"


def short_names(arguments: Sequence[str]) -> list[str]:
    """File names without suffix, with as many folders as it takes to tell them apart."""
    parts = [_parts(argument) for argument in arguments]
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


def _parts(argument: str) -> tuple[str, ...]:
    """Folders and name of a file, without the architecture before it and its suffix."""
    path = Path(argument if is_checkpoint(argument) else argument.partition("=")[2] or argument)
    if path.name in ("", ".."):  # such as "."
        path = path.resolve()
    suffix = path.suffix if path.suffix in SUFFIXES else ""
    return (*path.parts[:-1], path.name.removesuffix(suffix))


def load(argument: str, given: Normalisation = (None, None)) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network that a name of `models.load` stands for, and what is known of it.

    Raises:
        ValueError: It is no such name, or one of an untrained network.
        FileNotFoundError: A file that is not there.
    """
    mean, std = (None, None) if is_checkpoint(argument) else given
    model, about = open_model(argument, mean=mean, std=std)
    if "weights" in about and about["weights"] is None and ".py:" not in argument:
        raise ValueError(
            f"{argument} is untrained; trained networks are FILE.safetensors or {argument}=FILE"
        )
    if about.get("num_classes") == 0:
        raise ValueError(f"{argument} has no classifier: {about['weights']}")
    return model, about


def check_channels(model: str, about: Mapping[str, Any], data: Inputs) -> None:
    """Images of as many channels as the header says; of arrays the network itself will say.

    Raises:
        ValueError: Others.
    """
    if not isinstance(data, ImageData):
        return
    channels = data.images.shape[1]
    if about.get("in_channels", channels) != channels:
        raise ValueError(
            f"{model} takes images with {about['in_channels']} channels, {data.name} has {channels}"
        )


def numbered_for(model: str, about: Mapping[str, Any], images: ImageData) -> ImageData:
    """The images with labels that are the numbers of classes in the network.

    Where both name their classes, those of the images may be some of the network's, in any order.
    Others are said, and keep their numbers.
    """
    wanted = tuple(about.get("classes") or ())
    both = are_named(wanted) and are_named(images.classes)
    if not both or images.classes == wanted:
        return images
    numbers = numbers_in(images.classes, wanted)
    if numbers is None:
        typer.echo(
            f"{images.name} has other classes than {model}: {difference(images.classes, wanted)}; "
            "labels are taken as they are numbered, and accuracies mean nothing where the numbers "
            "are of other classes"
        )
        return images
    typer.echo(f"labels of {images.name} are numbered as in {model}, by the names of classes")
    return replace(images, labels=numbers[images.labels], classes=wanted)
