"""Numbers as files: JSON of results, and hashes that name what was made of which settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim_fast._core.files import replacing
from repsim_fast.analysis.estimates import Estimate

# Bumped when networks or comparisons of unchanged settings would come out differently.
VERSION = 3


def digest(thing: Any) -> str:
    """Hash of plain data or a dataclass, 12 hexadecimal digits."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        thing = dataclasses.asdict(thing)
    text = json.dumps([VERSION, thing], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain(thing: Any) -> Any:
    """As JSON holds it, numbers of six digits, NaN as null; estimates as {"value", "se", "df"}, the
    degrees of freedom of the error where they are finite."""
    if isinstance(thing, Estimate):
        held = {"value": plain(thing.value), "se": plain(thing.standard_error)}
        return {**held, "df": plain(thing.degrees)} if np.isfinite(thing.degrees) else held
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple, np.ndarray)):
        return [plain(value) for value in thing]
    if isinstance(thing, (float, np.floating)):
        return float(f"{thing:.6g}") if np.isfinite(thing) else None
    if isinstance(thing, np.integer):
        return int(thing)
    return thing


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    with replacing(path) as part:
        part.write_text(text)


def write_json(path: Path, thing: Any) -> None:
    """As `plain` has it, whole or not at all."""
    write_text(path, json.dumps(plain(thing), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text())
