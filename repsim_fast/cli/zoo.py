"""Many models as they are named on the command line: patterns, folders, recordings."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from torch import nn

from repsim_fast.comparison.recording import Recording, is_recording
from repsim_fast.comparison.storage import is_result
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


def expand(arguments: Sequence[str], what: str = "MODEL", *, say: bool = True) -> list[str]:
    """Arguments with patterns and folders replaced by the models that they stand for.

    A folder stands for the checkpoints and recordings in it, or where it has none for other files
    of weights; one that is a recording for itself. ARCHITECTURE=PLACE stands for the files of
    weights there, each as ARCHITECTURE=FILE. Results of comparisons are no models.

    Args:
        arguments: As they were given.
        what: Their name in messages.
        say: Whether this process names the files of weights that are left out.

    Raises:
        ValueError: A pattern or a folder without a model.
    """
    return [model for argument in arguments for model in _models_of(argument, what, say)]


def _models_of(argument: str, what: str, say: bool) -> list[str]:
    if is_recording(argument):
        return [argument]
    if Path(argument).is_file() and is_result(Path(argument)):
        raise ValueError(
            f"{what}: expected networks or recordings, got the result {argument!r}, which "
            "`repsim-fast report` shows"
        )
    places = _places(argument)
    ours, others = _checkpoints(places or [])
    if ours and others and say:
        typer.echo(
            f"{argument}: left out {', '.join(others[:5])}{', ...' * (len(others) > 5)} beside "
            "checkpoints and recordings; ARCHITECTURE=FILE names weights of other origin"
        )
    if found := ours or others:
        return found
    architecture, _, rest = argument.partition("=")
    file, number_sign, key = rest.partition("#")
    inside = _places(file) if file else None
    if weights := sorted(p for p in inside or [] if _has_weights(p)):
        return [f"{architecture}={path}{number_sign}{key}" for path in weights]
    if inside is not None:
        raise ValueError(f"{what}: expected weights ({', '.join(SUFFIXES)}) at {rest!r}, got none")
    if places is not None and not Path(file).is_file():
        raise ValueError(
            f"{what}: expected checkpoints (*.safetensors) or recordings at {argument!r}, got none"
        )
    return [argument]


def _checkpoints(places: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Those of this package and recordings, and files that may be weights by their names."""
    weights = sorted(place for place in places if _has_weights(place))
    ours = [p for p in weights if p.suffix == ".safetensors"]
    recordings = [p for p in places if is_recording(p)]
    others = [str(p) for p in weights if p not in ours]
    return sorted(map(str, [*ours, *recordings])), others


def _has_weights(place: Path) -> bool:
    return place.suffix in SUFFIXES and place.is_file() and not is_result(place)


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
