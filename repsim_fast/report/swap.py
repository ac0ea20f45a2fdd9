"""Files of a folder that change as one, whenever the process that changes them is killed.

All of them are written to a folder inside, ``.next``, then a manifest: from here on the change will
be made, by this process or the next one that looks. Their moves take less than a millisecond; the
manifest is the last to move.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repsim_fast._core import headers
from repsim_fast._core.files import open_regular, replacing, synced

MANIFEST = "manifest.json"
_NEXT = ".next"


def _file_name(value: Any, where: str) -> None:
    headers.text(255)(value, where)
    if Path(value).name != value or value in ("", ".", ".."):
        raise ValueError(f"{where}: expected the name of a file, got {value!r}")


def _files(value: Any, where: str) -> None:
    headers.named(headers.text(64))(value, where)
    for name in value:
        _file_name(name, where)


_SCHEMA = headers.record({"files": _files, "outdated": headers.listed(_file_name)})
_CHUNK = 1 << 20


@contextlib.contextmanager
def changed_as_one(folder: Path, outdated: Sequence[str] = ()) -> Iterator[Path]:
    """A folder for new files, which replace those of the last such change when the block ends well.

    Args:
        folder: Where they go; the caller holds its lock.
        outdated: Names of further files to remove.

    Raises:
        OSError: They cannot be written.
    """
    finish(folder)
    new = folder / _NEXT
    new.mkdir()
    try:
        yield new
        files = {path.name: _digest(path) for path in sorted(new.iterdir())}
        text = json.dumps({"files": files, "outdated": list(outdated)}, indent=1)
        with replacing(new / MANIFEST) as part:
            part.write_text(text + "\n")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    finish(folder)


def finish(folder: Path) -> None:
    """Make the change that was decided on and not finished, and forget one that was not."""
    new = folder / _NEXT
    if (new / MANIFEST).is_file():
        _move(new, folder)
    elif new.is_dir():
        shutil.rmtree(new)


def check(folder: Path, *names: str) -> None:
    """See that the files of the last change are all there as they were.

    Args:
        names: Of files that must be among them.

    Raises:
        FileNotFoundError: There never was a change.
        ValueError: They are not, or the manifest is no such file.
    """
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"there is no {MANIFEST} in {str(folder)!r}")
    files = _read(folder / MANIFEST)["files"]
    if missing := set(names) - files.keys():
        raise ValueError(f"{folder / MANIFEST} does not list {', '.join(sorted(missing))}")
    for name, digest in files.items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise ValueError(f"{path} is missing or not the file that {MANIFEST} lists")


def _move(new: Path, folder: Path) -> None:
    held = _read(new / MANIFEST)
    for name, digest in _before(folder).items():
        path = folder / name
        # What someone has changed since is theirs now.
        if name not in held["files"] and path.is_file() and _digest(path) == digest:
            path.unlink()
    for name in held["outdated"]:
        (folder / name).unlink(missing_ok=True)
    for name in held["files"]:
        if (new / name).exists():  # else it has moved already
            (new / name).replace(folder / name)
    synced(folder)
    (new / MANIFEST).replace(folder / MANIFEST)
    synced(folder)
    shutil.rmtree(new)


def _before(folder: Path) -> dict[str, str]:
    """Digests by name of the last change's files; none without a manifest of ours."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        found: dict[str, str] = _read(folder / MANIFEST)["files"]
        return found
    return {}


def _read(manifest: Path) -> dict[str, Any]:
    with open_regular(manifest) as file:
        text = file.read()
    held: dict[str, Any] = headers.parsed(text, _SCHEMA, str(manifest))
    return held


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
