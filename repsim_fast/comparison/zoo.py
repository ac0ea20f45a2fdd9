"""Many models compared that are not all in memory at a time: one after the other is recorded."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import torch
from torch import nn
from tqdm import tqdm

from repsim_fast._core import headers
from repsim_fast._core.files import check_writable
from repsim_fast._core.model_state import usable_device
from repsim_fast._core.processes import members
from repsim_fast._core.scratch import Scratch
from repsim_fast.capture import LayerSpec
from repsim_fast.comparison.asked import asked_of_models, unlike_data
from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.plan import Transform, is_layer_choice, per_model
from repsim_fast.comparison.playback import check_recordings, measure_for
from repsim_fast.comparison.processes import Together
from repsim_fast.comparison.record import RecordOptions, record
from repsim_fast.comparison.recording import Recording
from repsim_fast.comparison.recording_files import INDEX, Stored
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.data.rereading import rereading
from repsim_fast.similarity import Measure
from repsim_fast.similarity.base.estimator import Estimator
from repsim_fast.similarity.base.measure import options as options_of_measure

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Unpack

__all__ = ["compare_zoo"]

Entry: TypeAlias = "nn.Module | Callable[[], nn.Module] | Recording | str | os.PathLike[str]"
"""A model, what makes or loads one when it is its turn, or a recording or its path."""

_LONGEST_NAME = 80
# Errors of a full disk; Windows has no quotas.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def compare_zoo(
    zoo: Mapping[str, Entry],
    data: Any = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    layers: LayerSpec | Sequence[LayerSpec] | Mapping[str, LayerSpec] = None,
    inputs: Transform | Sequence[Transform | None] | Mapping[str, Transform] | None = None,
    measure: str | Measure[Any] = "cka",
    estimator: Estimator | None = None,
    jackknife: int | None = None,
    permutations: int | None = None,
    stored: Stored | None = None,
    progress: bool = False,
    process_group: ProcessGroup | None = None,
    **options: Unpack[RecordOptions],
) -> SimilarityResult:
    """Compare models that are loaded one after the other, each let go of before the next.

    What ``compare`` of all of them gives, to the last bit where models draw no random numbers: each
    is recorded (see ``record``), then the recordings are compared. A model that cannot be loaded or
    fails is left out and named, in a note of the result and in its settings under "failed"; the
    others are kept. With a folder their recordings stay there, so that the same call goes on where
    it was stopped, repeats only what failed, and ``extend`` of the result costs one model.

    Args:
        zoo: By name a model, a callable without arguments that returns one, which is called when
            it is that model's turn, or a recording or the path of its folder.
        data: As for ``compare``, read once for each model, and held against recordings; may be left
            out of recordings alone.
        folder: Where recordings go, each in a folder of its model's name. Default: a temporary one,
            removed in the end.
        layers: As for ``compare``.
        inputs: As for ``compare``.
        measure: As for ``compare``. Others than "cka" keep the features of all layers on the disk.
        estimator: As for ``compare``.
        jackknife: As for ``compare``.
        permutations: As for ``compare``.
        stored: Dtype in the files, as for ``record``.
        progress: Show progress bars, of models and of the batches of one; of several processes the
            first one shows them.
        process_group: Processes that share the models: each calls ``compare_zoo`` with the same zoo
            and data, model i is recorded by the process of rank i modulo their number, the first
            one compares, and all return the result of one process. The folder must be one that all
            of them see. After a killed process the same call goes on where it was. A process that
            is done waits for the others, for the group's timeout at most. Default: this process
            alone.
        **options: Further options of ``record``: ``batch_size``, ``maps``, ``seed``, ``device`` ...
            What recordings of the zoo must have been made with, they are held against as
            ``compare`` does; of recordings alone the data are, too.

    Returns:
        The similarities of all pairs of layers of the models that did not fail.

    Raises:
        ValueError: An empty zoo, recordings that do not belong together, processes without a
            folder or with other zoos, data that can be read once alone.
        OSError: The folder cannot be written to, or the disk is full; what is recorded stays.
        TypeError: An entry of another type, or no data for a model.
        RuntimeError: Every model failed; the message has the first error of each.
        OtherProcessError: Another process failed, or was killed.

    Example:
        >>> import torch
        >>> from repsim_fast import compare_zoo
        >>> zoo = {f"width {w}": lambda w=w: torch.nn.Linear(5, w) for w in (2, 4, 8)}
        >>> result = compare_zoo(zoo, torch.randn(64, 5))
        >>> result.models
        ('width 2', 'width 4', 'width 8')
    """
    if not isinstance(zoo, Mapping):
        raise TypeError(f"zoo: expected a mapping of names to models, got {type(zoo).__name__}")
    if not zoo:
        raise ValueError("zoo: expected at least one model, got none")
    for name, entry in zoo.items():
        _check_entry(name, entry, data)
    _check_options(zoo, data, {"layers": layers, "inputs": inputs}, options)
    opened = {name: _attempt(zoo[name], data, Path()) for name in zoo if _is_recording(zoo[name])}
    recordings = {name: one for name, one in opened.items() if isinstance(one, Recording)}
    alone = len(opened) == len(zoo)
    if alone:
        _check_nothing_is_recorded(stored, options)
    else:
        layers_of = _of_each("layers", layers, zoo, recordings)
        inputs_of = _of_each("inputs", inputs, zoo, recordings)
    chosen = measure_for(recordings, measure, estimator)
    accumulator = chosen.accumulator()
    of_features = accumulator.centering is None
    recorded: dict[str, Any] = {"keep": "features"} if of_features else {}
    if not of_features and "estimator" in options_of_measure(chosen):
        recorded["estimator"] = options_of_measure(chosen)["estimator"]
    processes = members(process_group)
    if processes.size > 1 and folder is None:
        raise ValueError("folder: expected one that all processes see, got None")
    made: dict[str, Recording | str] = {}

    def compared() -> SimilarityResult:
        found = {name: one for name, one in made.items() if isinstance(one, Recording)}
        failed = {name: one for name, one in made.items() if isinstance(one, str)}
        if not found:
            texts = "; ".join(f"{name!r}: {text}" for name, text in failed.items())
            raise RuntimeError(f"zoo: every model failed: {texts}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notes come below, together with our own
            of_all: dict[str, Any] = {"layers": layers, "inputs": inputs, **options}
            result = compare(
                found,
                data=data if alone else None,
                measure=chosen,
                jackknife=jackknife,
                permutations=permutations,
                progress=progress,
                **(of_all if alone else {"device": options.get("device")}),
            )
        settings = dict(result.settings)
        if folder is None:  # those that are gone
            settings["recordings"] = {
                name: path
                for name, path in settings["recordings"].items()
                if not Path(path).is_relative_to(place)
            }
        if failed:
            settings["failed"] = failed
        notes = [f"model {name!r} failed and is left out: {text}" for name, text in failed.items()]
        notes += unlike_data(tuple(zoo), recordings, inputs)
        return replace(result, settings=settings, notes=(*notes, *result.notes))

    with (
        Together(processes) as together,
        _place(folder) as place,
        rereading(data) as rewind,
    ):
        _check_same_zoo(together.gather(list(zoo)))
        progress = progress and processes.first
        with tqdm(total=len(zoo), desc="zoo", unit="model", disable=not progress) as bar:
            own = list(zoo)[processes.rank :: processes.size]
            # Recordings first: what does not belong to them is seen after one model.
            for name in sorted(own, key=lambda name: not _is_recording(zoo[name])):
                rewind()
                made[name] = opened.get(name) or _attempt(
                    zoo[name],
                    _data_of(name, zoo, data),
                    place / _folder_name(name),
                    name=name,
                    layers=layers_of.get(name),
                    inputs=inputs_of.get(name),
                    stored=stored,
                    progress=progress,
                    **recorded,
                    **options,
                )
                two = {n: one for n, one in made.items() if isinstance(one, Recording)}
                if name in two:
                    first = next(iter(two))
                    check_recordings({n: two[n] for n in (first, name)}, chosen, accumulator)
                if progress:
                    bar.update(_n_done(zoo, made, place) - bar.n)
            made = {name: made[name] for name in zoo if name in made}
            if processes.size > 1:
                made = _joined(together.gather(_told(made)), list(zoo))
            bar.update(len(zoo) - bar.n)
        result = together.of_first(compared)
    if processes.first:
        result.warn(stacklevel=3)
    return result


def _check_same_zoo(found: list[list[str]]) -> None:
    for rank, names in enumerate(found):
        if names != found[0]:
            raise ValueError(
                f"zoo: expected the same models in all processes, got {found[0]} in process 0 and "
                f"{names} in process {rank}"
            )


def _n_done(zoo: Mapping[str, Entry], made: Mapping[str, object], place: Path) -> int:
    """Models that this process is done with, or that another one has recorded."""
    recorded = (name for name in zoo if (place / _folder_name(name) / INDEX).exists())
    return len({*made, *recorded})


def _told(made: Mapping[str, Recording | str]) -> dict[str, Path | str]:
    """What other processes need of this one's: where recordings are, and why there is none."""
    return {
        n: one.path.absolute() if isinstance(one, Recording) else one for n, one in made.items()
    }


def _joined(told: list[dict[str, Path | str]], names: list[str]) -> dict[str, Recording | str]:
    """What all processes made, in the order of the zoo."""
    all_made = {name: one for some in told for name, one in some.items()}
    return {n: one if isinstance(one := all_made[n], str) else Recording.open(one) for n in names}


def _check_entry(name: object, entry: object, data: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"zoo: expected names of models, got {name!r}")
    headers.text()(name, "zoo: name")
    if _is_recording(entry):
        return
    if not callable(entry):
        raise TypeError(
            f"zoo: expected a model, a callable that returns one, or a recording for {name!r}, got "
            f"{type(entry).__name__}"
        )
    if data is None:
        raise TypeError(f"data is missing, on which to run {name!r}")


def _is_recording(entry: object) -> bool:
    return isinstance(entry, (Recording, str, os.PathLike))


def _check_options(
    zoo: Mapping[str, Entry],
    data: Any,
    by_model: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Raises what would be the same for every model, before the first one is loaded."""
    if unknown := sorted(options.keys() - RecordOptions.__annotations__.keys()):
        raise TypeError(f"compare_zoo() got an unexpected keyword argument {unknown[0]!r}")
    for argument, given in by_model.items():
        strangers = [n for n in given if n not in zoo] if isinstance(given, Mapping) else []
        if strangers:
            raise ValueError(
                f"{argument}: no model is named {strangers[0]!r}; there are {tuple(zoo)}"
            )
    run = [name for name, entry in zoo.items() if not _is_recording(entry)]
    if isinstance(data, Iterator) and len(run) > 1:
        raise ValueError(
            f"data: expected data that can be read for each of {len(run)} models, got "
            f"{type(data).__name__}: a list of batches, a loader or a data set can"
        )
    if _by_model(zoo, data) and (missing := [name for name in run if name not in data]):
        raise ValueError(
            f"data: a mapping must have the inputs of each model by its name, got none for "
            f"{missing[0]!r}"
        )
    if options.get("device") is not None:
        usable_device(options["device"])


def _check_nothing_is_recorded(stored: object, options: Mapping[str, Any]) -> None:
    """Raises ValueError for what says how to record, where there are recordings alone."""
    said = {"stored": stored, "every": options.get("every")}
    for argument, value in said.items():
        if value is not None:
            raise ValueError(
                f"{argument}: expected none with recordings alone, as nothing is recorded, got "
                f"{value!r}"
            )


def _of_each(
    argument: str, value: Any, zoo: Mapping[str, Entry], recordings: Mapping[str, Recording]
) -> dict[str, Any]:
    """An argument of ``compare`` for each model that is run, held against the recordings."""
    names = tuple(zoo)
    run = asked_of_models(argument, value, names, recordings)
    is_one = is_layer_choice if argument == "layers" else callable
    return per_model(argument, run, [n for n in names if n not in recordings], is_one)


def _by_model(zoo: Mapping[str, Entry], data: Any) -> bool:
    """Whether data are a mapping with inputs of their own for each model."""
    return isinstance(data, Mapping) and bool(zoo.keys() & data.keys())


def _data_of(name: str, zoo: Mapping[str, Entry], data: Any) -> Any:
    return {name: data[name]} if _by_model(zoo, data) and name in data else data


def _attempt(entry: Entry, data: Any, path: Path, **options: Any) -> Recording | str:
    """The recording of an entry, or why there is none: a text, as an error holds the model."""
    try:
        return _recorded(entry, data, path, **options)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise  # no fault of the model's, and the next one would have it, too
        return _short(error)


def _recorded(entry: Entry, data: Any, path: Path, **options: Any) -> Recording:
    """The recording of an entry, made now unless it is one; a model that was made is let go of."""
    if isinstance(entry, Recording):
        return entry
    if isinstance(entry, (str, os.PathLike)):
        return Recording.open(entry)
    if isinstance(entry, nn.Module):
        return record(entry, data, path, **options)
    model = entry()
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module from the callable, got {type(model).__name__}")
    try:
        return record(model, data, path, **options)
    finally:
        del model
        gc.collect()  # networks are full of cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _place(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder, or one for a while."""
    if folder is not None:
        yield check_writable(folder)
        return
    scratch = Scratch()
    try:
        yield scratch.path
    finally:
        scratch.close()


def _folder_name(name: str) -> str:
    """A name for a folder, different for different names."""
    quoted = quote(name, safe=" ()+,=@")
    quoted = "%2E" + quoted[1:] if quoted.startswith(".") else quoted or "%"
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[: _LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:1000]}"
