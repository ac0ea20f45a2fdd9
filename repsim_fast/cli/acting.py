"""What options of `repsim-fast compare` act on, so that none is ignored without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from .options import On, typed_options
from .run_options import masks

if TYPE_CHECKING:
    import typer

    from repsim_fast.comparison.recording import Recording


def check_acting(
    command: Callable[..., Any],
    context: typer.Context,
    recordings: Mapping[str, Recording],
    *,
    data: bool,
) -> None:
    """Hold the options that were typed against recordings, beside which no network is run.

    Args:
        command: With the declarations of its options.
        context: Of its call.
        recordings: By name.
        data: Whether there are data to be read.

    Raises:
        ValueError: An option that nothing would follow and that is not what recordings were made
            with.
    """
    declared = get_type_hints(command, include_extras=True)
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in typed_options(context):
            continue
        acts_on = [m for m in getattr(declared[name], "__metadata__", ()) if isinstance(m, On)]
        if On.RESULTS in acts_on or (data and On.DATA in acts_on):
            continue
        option, value = parameter.opts[0], context.params[name]
        if value is False and parameter.secondary_opts:
            option = parameter.secondary_opts[0]
        what = "networks as they are run, and these are recordings: record them with it"
        if On.DATA in acts_on:
            what = "how --data are read, and there are none: add them, or record with it"
        for label, recording in recordings.items():
            made_with = _made_with(name, recording)
            if made_with is _NOT_KNOWN:
                raise ValueError(f"{option}: acts on {what}")
            asked = _as_recorded(name, value)
            if made_with != asked:
                raise ValueError(
                    f"{option}: expected {made_with!r}, with which recording {label!r} was made, "
                    f"got {asked!r}: it acts on {what}"
                )


def check_attacked(recordings: Mapping[str, Recording], make: Callable[[], Any] | None) -> None:
    """Hold what networks are to see against recordings, which are compared with them.

    Args:
        recordings: By name.
        make: What makes the attack on a network; None without one.

    Raises:
        ValueError: A recording of other images than networks see.
    """
    from repsim_fast.comparison.described import describe

    asked = "" if make is None else describe(make())
    for label, recording in recordings.items():
        made_with = recording.settings.get("inputs", {}).get(recording.name, "")
        # Recordings also tell of the network that was attacked, which is not here.
        of_network = f"partial({asked}, "
        if made_with != asked and not (asked and made_with.startswith(of_network)):
            raise ValueError(
                f"--attack: expected {made_with or 'none'}, with which recording {label!r} was "
                f"made, got {asked or 'none'} for the networks: record all of them to compare "
                "recordings of different attacks"
            )


def _as_recorded(name: str, value: Any) -> Any:
    from repsim_fast.comparison.described import describe

    if name == "mask" and (mask := masks(value)) is not None:
        return describe(mask)
    return ", ".join(value) if name == "layers" else value


_NOT_KNOWN = object()


def _made_with(name: str, recording: Recording) -> Any:
    """The option's value when recording, where recordings know it."""
    if name == "shuffle":
        return recording.settings["order"] == "random"
    if name == "layers":
        return recording.settings["layers"].get(recording.name)
    return recording.settings.get(name, _NOT_KNOWN)
