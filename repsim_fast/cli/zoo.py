"""Many models as they are named on the command line: patterns, folders, recordings."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from torch import nn

from repsim_fast.comparison.recording import Recording, is_recording
from repsim_fast.models.named import SUFFIXES, Opened

from .models import Normalisation, open_models, short_names

if TYPE_CHECKING:
    from .options import Inputs


class Zoo(NamedTuple):
    """Networks and recordings by a short name, in the order of the arguments.

    Attributes:
        members: A network in evaluation mode, or a recording.
        about: A line about each of them for a table.
    """

    members: dict[str, nn.Module | Recording]
    about: list[dict[str, Any]]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Those to be run."""
        return {n: m for n, m in self.members.items() if not isinstance(m, Recording)}

    @property
    def recordings(self) -> dict[str, Recording]:
        """Those that are there."""
        return {n: m for n, m in self.members.items() if isinstance(m, Recording)}


def expand(arguments: Sequence[str]) -> list[str]:
    """Arguments with patterns and folders replaced by the models that they stand for.

    A folder stands for the checkpoints and recordings in it; one that is a recording for itself.
    ARCHITECTURE=PLACE stands for the files of weights there, each as ARCHITECTURE=FILE.

    Raises:
        ValueError: A pattern or a folder without a model.
    """
    return [model for argument in arguments for model in _models_of(argument)]


def _models_of(argument: str) -> list[str]:
    if is_recording(argument):
        return [argument]
    places = _places(argument)
    if found := _checkpoints(places or []):
        return found
    architecture, _, rest = argument.partition("=")
    file, number_sign, key = rest.partition("#")
    inside = _places(file) if file else None
    if weights := sorted(p for p in inside or [] if p.suffix in SUFFIXES and p.is_file()):
        return [f"{architecture}={path}{number_sign}{key}" for path in weights]
    if inside is not None:
        raise ValueError(f"MODEL: expected weights ({', '.join(SUFFIXES)}) at {rest!r}, got none")
    if places is not None and not Path(file).is_file():
        raise ValueError(
            f"MODEL: expected checkpoints (*.safetensors) or recordings at {argument!r}, got none"
        )
    return [argument]


def _checkpoints(places: Sequence[Path]) -> list[str]:
    """Those of this package and recordings; where there is none, what may be one by its name."""
    ours = [p for p in places if p.suffix == ".safetensors" or is_recording(p)]
    return sorted(map(str, ours or [p for p in places if p.suffix in SUFFIXES]))


def _places(argument: str) -> list[Path] | None:
    """What lies in a folder or matches a pattern; None of what is neither."""
    path = Path(argument)
    if path.is_dir():
        return list(path.iterdir())
    # A file's name may have a bracket.
    if path.exists() or not glob.has_magic(argument):
        return None
    return [Path(found) for found in glob.glob(argument, recursive=True)]


def open_zoo(
    arguments: Sequence[str],
    images: Inputs | None,
    *,
    seed: int,
    given: Normalisation = (None, None),
    published: Mapping[str, Opened] | None = None,
    say: bool = True,
) -> Zoo:
    """Recordings, and networks to run on the images; ``given``, ``published`` and ``say`` as for
    ``open_models``.

    Raises:
        ValueError: An argument is nothing of the kind, or a network without images.
        FileNotFoundError: A file that is not there.
    """
    names = dict(zip(short_names(arguments), arguments, strict=True))
    recorded = {name for name, argument in names.items() if is_recording(argument)}
    if images is None and (others := [a for n, a in names.items() if n not in recorded]):
        raise ValueError(f"--data is missing, on which to run {', '.join(others[:5])}")
    members: dict[str, nn.Module | Recording] = {}
    about: list[dict[str, Any]] = []
    for position, (name, argument) in enumerate(names.items()):
        if name in recorded:
            recording = Recording.open(argument)
            members[name] = recording
            about.append({"model": name, "file": argument, **_recorded(recording)})
        elif images is not None:
            (opened,) = open_models(
                [argument], images, seed=seed + position, given=given, published=published, say=say
            ).values()
            members[name] = opened.module
            about.append({**opened.about, "model": name})
    return Zoo(members, about)


def _recorded(recording: Recording) -> dict[str, Any]:
    """What a table says of a recording in the columns of networks."""
    described = recording.settings.get("models", {}).get(recording.name, "")
    return {
        "network": f"recording of {described}",
        "training": "",
        "input": recording.settings.get("inputs", {}).get(recording.name, ""),
        "clean accuracy": None,
        "robust accuracy": None,
        "attack": "-",
    }


def say_what(zoo: Zoo) -> str:
    """The members in a few words."""
    names = list(zoo.members)
    return ", ".join(names[:8]) + f" and {len(names) - 8} more" * (len(names) > 8)


def echo_recording(recording: Recording) -> None:
    """One line on a recording that was made."""
    seconds = recording.seconds.get("total", 0.0)
    rate = f", {recording.n_samples / seconds:,.0f} samples/s" if seconds else ""
    off = float(recording.rounding.max())
    typer.echo(
        f"{recording.path}: {len(recording.layers)} layers, {recording.n_samples:,} samples, "
        f"{recording.n_bytes / 2**20:.1f} MiB{rate}"
        + (f", relative error of layers up to {off:.1e}" if off else "")
    )
