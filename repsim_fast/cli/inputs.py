"""What networks are run on to be compared or recorded: images, or arrays of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim_fast import data
from repsim_fast.data.arrays import SUFFIXES

from .models import size_for

if TYPE_CHECKING:
    from .options import Inputs


def load_inputs(
    spec: str,
    split: str,
    *,
    size: int | None,
    limit: int | None,
    seed: int,
    attack: str | None,
    mean: str | None,
    networks: Mapping[str, Mapping[str, Any]],
    say: bool,
    progress: bool,
) -> Inputs:
    """The data that --data names; images at the size that published weights want.

    Args:
        networks, say: As for ``size_for``. The other arguments are options of the commands.

    Raises:
        ValueError: No such data, or an option that is of images alone beside arrays.
        FileNotFoundError: A file that is not there.
    """
    if spec.startswith("npz:") or Path(spec).suffix not in SUFFIXES:
        size = size_for(networks, say=say) if size is None else size
        return data.load(spec, split, size=size, limit=limit, seed=seed, progress=progress)
    for option, value in (("--size", size), ("--attack", attack)):
        if value is not None:
            raise ValueError(f"{option}: only for images, --data {spec} has arrays")
    arrays = data.load_arrays(spec, limit=limit, seed=seed)
    if mean is not None and not any(array.ndim == 4 for array in arrays.values()):
        raise ValueError(f"--mean: normalises images (N, C, H, W), --data {spec} has none")
    return arrays
