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

from repsim_fast._core import headers
from repsim_fast._core.files import open_regular, replacing, synced

MANIFEST = "manifest.json"
_NEXT = ".next"
_SCHEMA = headers.record(
    {"files": headers.named(headers.text(64)), "outdated": headers.listed(headers.text(255))}
)
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


def finish(folder: Path, *, check: bool = False) -> None:
    """Make the change that was decided on and not finished, and forget one that was not.

    Args:
        check: Also see that the files of the last change are all there as they were.

    Raises:
        FileNotFoundError: ``check``, and there never was a change.
        ValueError: ``check``, and they are not.
    """
    new = folder / _NEXT
    if (new / MANIFEST).is_file():
        _move(new, folder)
    elif new.is_dir():
        shutil.rmtree(new)
    if not check:
        return
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"there is no {MANIFEST} in {str(folder)!r}")
    for name, digest in _files(folder / MANIFEST).items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise ValueError(f"{path} is missing or not the file that {MANIFEST} lists")


def _move(new: Path, folder: Path) -> None:
    text = (new / MANIFEST).read_text()
    held = headers.parsed(text, _SCHEMA, str(new / MANIFEST))
    for name, digest in _files(folder / MANIFEST).items():
        path = folder / name
        # What someone has changed since is theirs now.
        if name not in held["files"] and path.is_file() and _digest(path) == digest:
            path.unlink()
    for name in held["outdated"]:
        (folder / Path(name).name).unlink(missing_ok=True)
    for name in held["files"]:
        if (new / Path(name).name).exists():  # else it has moved already
            (new / Path(name).name).replace(folder / Path(name).name)
    synced(folder)
    (new / MANIFEST).replace(folder / MANIFEST)
    synced(folder)
    shutil.rmtree(new)


def _files(manifest: Path) -> dict[str, str]:
    """Digests by name; none without a manifest, or with one that is not ours."""
    try:
        held = headers.parsed(manifest.read_text(), _SCHEMA, str(manifest))
    except (OSError, ValueError):
        return {}
    return {name: digest for name, digest in held["files"].items() if Path(name).name == name}


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
