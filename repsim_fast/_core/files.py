"""Files that are either written whole or not at all, and folders that they can be written to."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Missing folders are made. After an exception a file that was there before is still intact. The
    new file has the permissions of the old one, or else those of any new file.

    Raises:
        OSError: The place cannot be written to; the message says which and why.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        # The suffix stays last: writers such as matplotlib choose the format by it.
        temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
        temporary.touch(exist_ok=False)
        # Noted now: some writers (safetensors) make a file of their own that only its owner reads.
        mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write {str(target)!r}: {reason}") from error
    try:
        yield temporary
        temporary.chmod(mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """Make ``folder`` and prove that files can be written there, before work is spent on them.

    Raises:
        OSError: They cannot; the message says where and why.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        # A file where a folder should be reads "File exists" otherwise.
        reason = "it is not a folder" if path.is_file() else error.strerror or str(error)
        raise OSError(f"cannot write to {str(path)!r}: {reason}") from error
    return path
