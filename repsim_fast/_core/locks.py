"""One process at a time: locks on outputs, which end with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import sweep

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Taken(OSError):
    """Another process, or another thread of this one, holds the lock."""


@contextlib.contextmanager
def only_writer(output: str | os.PathLike[str], *names: str) -> Iterator[None]:
    """Keep others away from a file or folder that is being written, and sweep what kills left.

    Swept are the temporary files of the file, or of the files in the folder that have these names.

    The lock lies in the folder, or beside the file. The operating system drops it when the process
    ends, however it ends; where the file system knows no locks, a file with the process's number
    stands for it, which counts as long as that process lives.

    Raises:
        OSError: Someone else writes there now, or nothing can be written there.
    """
    path = Path(output)
    folder = path if path.is_dir() else path.parent
    name = ".lock" if path.is_dir() else f".{path.name[:80]}.lock"
    try:
        stack = locked(folder / name)
    except Taken as taken:
        raise OSError(
            f"{str(path)!r} is being written by another run ({taken}): wait for its end, or choose "
            "another place"
        ) from None
    with stack:
        for target in (folder / name for name in names or [path.name]):
            sweep(target)
        yield


def locked(path: Path) -> contextlib.ExitStack:
    """Take the lock ``path``; the stack that comes back releases it when it is closed.

    Raises:
        Taken: It is held.
        OSError: It cannot be made.
    """
    try:
        return _by_system(path)
    except Taken:
        raise
    except (OSError, ImportError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        return _by_number(path)


# What file systems without locks say.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_held: set[int] = set()


def _by_system(path: Path) -> contextlib.ExitStack:
    if fcntl is None:
        raise ImportError("fcntl")
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the name in between.
            if not _same(number, path):
                os.close(number)
                continue
            os.ftruncate(number, 0)
            os.write(number, _here().encode())
        except OSError as error:
            holder = _read(path)
            os.close(number)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
                raise Taken(holder) from None
            raise
        break
    _held.add(number)

    def release() -> None:
        _held.discard(number)
        path.unlink(missing_ok=True)
        os.close(number)

    stack = contextlib.ExitStack()
    stack.callback(release)
    return stack


def _same(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


def _forget() -> None:
    """In a forked child, which may outlive the process that holds the locks: let go of them."""
    for number in _held:
        with contextlib.suppress(OSError):
            os.close(number)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _by_number(path: Path) -> contextlib.ExitStack:
    """The number of this process in a file that only one can make."""
    for _ in range(2):
        try:
            with path.open("x") as file:
                file.write(_here())
        except FileExistsError:
            holder = _read(path)
            if _lives(holder):
                raise Taken(holder) from None
            path.unlink(missing_ok=True)
            continue
        stack = contextlib.ExitStack()
        stack.callback(path.unlink, missing_ok=True)
        return stack
    raise Taken(_read(path))


def _here() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _read(path: Path) -> str:
    try:
        return path.read_text()[:200] or "a process that is starting"
    except (OSError, UnicodeDecodeError):
        return "an unknown process"


def _lives(holder: str) -> bool:
    """Whether the process that wrote itself down still runs; of another machine that is unknown."""
    words: list[Any] = holder.split()
    if len(words) != 4 or not words[1].isdigit():
        return False  # killed between making the file and writing to it
    if words[3] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
