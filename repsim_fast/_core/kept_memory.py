"""Memory that the process keeps between the steps of a loop on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
from collections.abc import Iterator

import torch

from .threads import WhileUsed

# Parameters of glibc's mallopt, and the most that its int takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# Where glibc's own adjustment of both ends up once a program has freed large blocks. It ends for
# good with the first call of mallopt, and the values that it had cannot be asked for.
_USUAL_MMAP, _USUAL_TRIM = 32 * 2**20, 64 * 2**20


@contextlib.contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Within, memory that is freed stays with the process, for the next step to use.

    Otherwise glibc gives the large blocks of activations back to the system in each step, and each
    step pays for every page anew. The price: between steps the process holds the most that it has
    used so far; other programs get it at the end. Nothing happens on other devices, without glibc,
    or where the environment says how its malloc is to behave. May be used within itself and in
    several threads.
    """
    if device.type != "cpu" or _tunable_malloc() is None:
        yield
        return
    with _while_kept():
        yield


def _keep(first: bool) -> None:
    if first and (malloc := _tunable_malloc()) is not None:
        malloc.mallopt(_MMAP_THRESHOLD, _NEVER)
        malloc.mallopt(_TRIM_THRESHOLD, _NEVER)


def _give_back() -> None:
    if (malloc := _tunable_malloc()) is not None:
        malloc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        malloc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        malloc.malloc_trim(0)


_while_kept = WhileUsed(_keep, _give_back)


@functools.cache
def _tunable_malloc() -> ctypes.CDLL | None:
    """The C library, where it is glibc and nobody else has set how its malloc behaves."""
    set_outside = (
        "MALLOC_TRIM_THRESHOLD_" in os.environ
        or "MALLOC_MMAP_THRESHOLD_" in os.environ
        or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    )
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or set_outside:
        return None
    library = ctypes.CDLL(None)
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library
