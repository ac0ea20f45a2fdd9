"""Files that are either written whole or not at all, and folders that they can be written to."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# Of a file's own name in that of its temporary one: names end at 255 bytes.
_KEPT_OF_NAME = 40


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    Missing folders are made. After an exception a file that was there before is still intact, and
    after a failure of power the name has the old content or the new one, whole. The new file has
    the permissions of the old one, or else those of any new file.

    Raises:
        OSError: The place cannot be written to; the message says which and why.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        temporary = _temporary(target)
        temporary.touch(exist_ok=False)
        # Noted now: some writers (safetensors) make a file of their own that only its owner reads.
        mode = stat.S_IMODE((target if target.exists() else temporary).stat().st_mode)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"cannot write {str(target)!r}: {reason}") from error
    try:
        yield temporary
        temporary.chmod(mode)
        synced(temporary)
        temporary.replace(target)
        synced(target.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # of a write, which knows no name
            raise OSError(error.errno, f"cannot write: {error.strerror}", str(target)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """A new name beside ``target``, which :func:`sweep` knows.

    The suffix stays last: writers such as matplotlib choose the format by it.
    """
    stem = target.stem[:_KEPT_OF_NAME]
    return target.with_name(f".{stem}-{secrets.token_hex(4)}.part{target.suffix}")


def sweep(target: Path) -> None:
    """Remove what killed writers of ``target`` left. For the one who alone writes it."""
    stem = glob.escape(target.stem[:_KEPT_OF_NAME])
    for left in target.parent.glob(f".{stem}-????????.part{glob.escape(target.suffix)}"):
        with contextlib.suppress(OSError):
            left.unlink()


def synced(path: Path) -> None:
    """Wait until ``path``, a file or the names in a folder, is on the disk.

    Without it, a failure of power could leave a new name with an empty file.
    """
    if path.is_dir() and os.name == "nt":  # which opens no folders
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(number)  # some network file systems refuse it for folders
    finally:
        os.close(number)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading, and nothing that could wait or go on for ever.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is a pipe, a device, a socket or a folder, or a link to one.
        OSError: It cannot be read.
    """
    # Non-blocking: the opening of a pipe would wait for someone to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ValueError(
            f"{os.fspath(path)}: expected a regular file, got a folder, pipe or device"
        )
    return os.fdopen(number, "rb")


def named_folder(argument: str, path: object) -> Path:
    """A folder's path; that of no name would be the current folder.

    Raises:
        TypeError: No path.
        ValueError: One without a name.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{argument}: expected the path of a folder, got {path!r}")
    if os.fspath(path) == "":
        raise ValueError(f"{argument}: expected the path of a folder, got {path!r}")
    return Path(path)


def check_writable(folder: str | os.PathLike[str]) -> Path:
    """Make ``folder`` and prove that files can be written there, before work is spent on them.

    Raises:
        ValueError: A folder without a name.
        OSError: They cannot; the message says where and why.
    """
    path = named_folder("folder", folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        # A file where a folder should be reads "File exists" otherwise.
        reason = "it is not a folder" if path.is_file() else error.strerror or str(error)
        raise OSError(f"cannot write to {str(path)!r}: {reason}") from error
    return path
