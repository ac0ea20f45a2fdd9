"""Folders for a while: of their own, removed at the end, and after a crash at the next start."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from .locks import Taken, locked

_PREFIX = "repsim_fast-scratch-"


class Scratch:
    """A new folder, in ``parent`` or the system's place for temporary files.

    It has a lock beside it for as long as its process lives, by which the next one knows what it
    may sweep.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        place = Path(tempfile.gettempdir()) if parent is None else parent
        place.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        self.path = place / f"{_PREFIX}{secrets.token_hex(8)}"
        # Before the folder: one without a lock is swept.
        self._lock = locked(_lock_of(self.path))
        try:
            self.path.mkdir(mode=0o700)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(place: Path) -> None:
    """Remove folders of processes that are no more."""
    mine = getattr(os, "getuid", lambda: None)()
    for entry in list(place.glob(f"{_PREFIX}*")):
        folder = entry.with_name(entry.name.removesuffix(".lock"))
        # Others' folders are theirs; links are nobody's.
        with contextlib.suppress(Taken, OSError):
            if mine is not None and entry.lstat().st_uid != mine:
                continue
            with locked(_lock_of(folder)):
                if folder.is_dir() and not folder.is_symlink():
                    shutil.rmtree(folder, ignore_errors=True)
