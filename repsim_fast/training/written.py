"""Settings as text that another process writes alike: what a resumed training is held against."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from repsim_fast._core.memory_format import is_ours
from repsim_fast._core.randomness import Stream

_LONGEST = 300  # characters


def written(value: object) -> str:
    """The value as another process writes it, too, in full."""
    if isinstance(value, Tensor):
        return repr(value.tolist())
    if isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(map(written, value))})"  # a tensor's own text rounds its numbers
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def in_full(value: object) -> str:
    """The same of an attack or detector, by all its settings where it is one of this package.

    Random streams are no part of it: of a stream without a seed each process has its own. Of long
    texts the end is a digest.
    """
    text = _in_full(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}... ({hashlib.sha256(text.encode()).hexdigest()[:16]})"


def _in_full(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_in_full(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_in_full, value))})"
    if isinstance(value, partial):
        return (
            f"partial({_in_full(value.func)}, {_in_full(value.args)}, {_in_full(value.keywords)})"
        )
    if isinstance(value, nn.Module):
        return type(value).__qualname__
    if is_ours(value):
        # A report is of the last call.
        settings = {
            name.lstrip("_"): entry
            for name, entry in vars(value).items()
            if name != "report" and not isinstance(entry, Stream)
        }
        return f"{type(value).__qualname__}{_in_full(settings)}"
    return written(value)
