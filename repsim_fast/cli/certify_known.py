"""Certificates of the images so far, in a file with which `repsim-fast certify` goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from repsim_fast._core.files import replacing
from repsim_fast._core.headers import listed, number, parsed, record, text, whole

if TYPE_CHECKING:
    import torch

# The state of a CPU's generator has 5,056 bytes, two digits each.
_STATE = 20_000
_FILE = record(
    {
        "settings": text(),
        "prediction": listed(whole(-1)),
        "radius": listed(number(0)),
        "noise": text(_STATE),
    }
)


def known(
    path: Path | None, settings: str, noise: torch.Generator
) -> tuple[list[int], list[float]]:
    """Predictions and radii that an earlier run found; ``noise`` goes on where it stopped.

    Raises:
        ValueError: A file of something else.
    """
    if path is None or not path.exists():
        return [], []
    import torch

    found = parsed(path.read_bytes(), _FILE, str(path))
    if found["settings"] != settings:
        raise ValueError(
            f"resume: {str(path)!r} is of {found['settings']}, not of {settings}; name another file"
        )
    try:
        noise.set_state(torch.tensor(list(bytes.fromhex(found["noise"])), dtype=torch.uint8))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"resume: {str(path)!r} has no state of random numbers: {error}") from None
    if len(found["prediction"]) != len(found["radius"]):
        raise ValueError(f"resume: {str(path)!r} has lists of two lengths")
    return found["prediction"], found["radius"]


def keep(
    path: Path,
    settings: str,
    prediction: list[int],
    radius: list[float],
    noise: torch.Generator,
) -> None:
    """Write what is known so far."""
    content = {
        "settings": settings,
        "prediction": prediction,
        "radius": radius,
        "noise": bytes(noise.get_state().tolist()).hex(),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
