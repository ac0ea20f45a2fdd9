"""Files that are whole or not there, and what is opened at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from repsim_fast._core.files import open_regular, replacing


def test_content_and_name_are_on_the_disk_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        done.append("folder" if os.path.samestat(os.fstat(number), tmp_path.stat()) else "file")
        fsync(number)

    def replaced(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with replacing(tmp_path / "x.txt") as part:
        part.write_text("whole")
    assert done == ["file", "rename", "folder"]
    assert (tmp_path / "x.txt").read_text() == "whole"


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    with replacing(path) as part:
        part.write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"x"
    for name in ("pipe", "endless", "."):
        with pytest.raises(ValueError, match="expected a regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    said = r"cannot write: File too large: '.*file'"
    with pytest.raises(OSError, match=said) as caught, replacing(target):
        raise OSError(errno.EFBIG, "File too large")
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
