"""Cards of networks: all that is known of a trained network besides its weights, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repsim_fast._core import headers

from .files import write_json

_SCHEMA = headers.record(
    {
        "recipe": headers.named(headers.free),
        "seconds": headers.number(0),
        "commit": headers.text(),
        "machine": headers.text(),
        "history": headers.listed(headers.named(headers.free)),
        "measured": headers.named(headers.named(headers.free)),
    }
)


@dataclass(frozen=True)
class Card:
    """What is known of a trained network.

    Attributes:
        recipe: How it was trained.
        seconds: Of its training, all epochs.
        commit: Which finished the training, empty where it is not known.
        machine: Which finished the training, likewise.
        history: What was measured in each epoch.
        measured: What was measured since, by name and settings: ``{"settings", "value"}``.
    """

    recipe: Mapping[str, Any]
    seconds: float
    commit: str
    machine: str
    history: list[dict[str, Any]]
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def with_measured(self, key: str, settings: Any, value: Any) -> Card:
        """The card with one measurement more."""
        entry = {"settings": settings, "value": value}
        return dataclasses.replace(self, measured={**self.measured, key: entry})

    def write(self, path: Path) -> None:
        """Whole or not at all; numbers of six digits, NaN as null."""
        write_json(path, dataclasses.asdict(self))


def read(path: Path) -> Card | None:
    """The card in a file; None where there is none, or a damaged one."""
    try:
        held = headers.parsed(path.read_text(), _SCHEMA, str(path))
    except (FileNotFoundError, ValueError):
        return None
    return Card(**{one.name: held[one.name] for one in dataclasses.fields(Card)})
