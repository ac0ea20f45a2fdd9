"""What is asked of members one by one: models do it, recordings must have been made with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from repsim_fast.comparison.described import describe
from repsim_fast.comparison.plan import is_layer_choice, per_model
from repsim_fast.comparison.recording import Recording


def asked_of_models(
    argument: str, value: Any, names: Sequence[str], recordings: Mapping[str, Recording]
) -> Any:
    """What ``make_plan`` takes of an argument of ``compare`` for the members that are run.

    Args:
        argument: "layers", "inputs" or "forward".
        value: One for all, or one for each member, by order or by name.
        names: Of all members.
        recordings: Those of them that are recordings.

    Raises:
        ValueError: Not one for each, or a recording that was made with another.
        TypeError: An argument of another type.
    """
    if value is None or not recordings:
        return value
    is_one = is_layer_choice if argument == "layers" else callable
    if not isinstance(value, Mapping) and is_one(value):
        # Layers and ways to run a model are its own; inputs are those that all are compared on.
        if argument == "inputs":
            for name, recording in recordings.items():
                _check(argument, name, recording, value, _run(names, recordings))
        return value
    each = per_model(argument, value, names, callable)
    given = value if isinstance(value, Mapping) else each
    for name, recording in recordings.items():
        # Layers as they come by default are no choice that a recording could be held against.
        if name in given and (given[name] is not None or argument == "inputs"):
            _check(argument, name, recording, given[name])
    return {name: each[name] for name in _run(names, recordings)}


def unlike_data(
    names: Sequence[str], recordings: Mapping[str, Recording], inputs: Any
) -> Iterable[str]:
    """A note on each recording of transformed inputs beside models that by default see none."""
    if inputs is not None or not _run(names, recordings):
        return
    for name, recording in recordings.items():
        if made_with := _made_with("inputs", recording):
            yield (
                f"recording {name!r} was made with inputs={made_with!r}, while models that are run "
                "see the data as they are: inputs= for each of them says that it is meant so"
            )


def _run(names: Sequence[str], recordings: Mapping[str, Recording]) -> list[str]:
    return [name for name in names if name not in recordings]


def _made_with(argument: str, recording: Recording) -> Any:
    return recording.settings.get(argument, {}).get(recording.name)


def _check(
    argument: str, name: str, recording: Recording, value: Any, run: Sequence[str] = ()
) -> None:
    """Raises ValueError unless the recording was made with that; ``run``: of all members."""
    made_with, asked = _made_with(argument, recording), None if value is None else describe(value)
    if made_with == asked:
        return
    whose = f"{argument}: expected {made_with!r}, with which recording {name!r} ({recording.path}) "
    if not run:
        raise ValueError(f"{whose}was made, got {asked!r} for it")
    raise ValueError(
        f"{whose}was made, got {asked!r} for all models: record it with {argument}=..., or say "
        f"whose they are, {argument}={{{', '.join(f'{n!r}: ...' for n in run[:3])}}}"
    )
