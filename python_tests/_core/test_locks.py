"""Locks on outputs: one at a time, none left behind, with the system's locks and without."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from repsim_fast._core import locks
from repsim_fast._core.locks import only_writer

HOLD = """
import sys, time
from repsim_fast._core import locks
if sys.argv[2] == "number":
    locks.fcntl = None
with locks.only_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["system", "number"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "number":
        monkeypatch.setattr(locks, "fcntl", None)
    return str(request.param)


def refused(path: Path) -> bool:
    found = ""
    try:
        with only_writer(path):
            pass
    except OSError as error:
        found = str(error)
    assert not found or "is being written by another run" in found
    return bool(found)


def test_a_lock_ends_with_its_process(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "network.safetensors"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out), kind], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert refused(out)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not refused(out)
    assert not list(tmp_path.iterdir())


def test_threads_and_folders(tmp_path: Path, kind: str) -> None:
    found = []
    with only_writer(tmp_path), only_writer(tmp_path / "a"), only_writer(tmp_path / "b"):
        thread = threading.Thread(target=lambda: found.append(refused(tmp_path)))
        thread.start()
        thread.join()
    assert found == [True]
    assert not refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    wait = context.Event()
    child = context.Process(target=wait.wait)
    with only_writer(tmp_path):
        child.start()
    assert not refused(tmp_path)
    wait.set()
    child.join()


def test_what_a_kill_left_is_swept(tmp_path: Path) -> None:
    left, others = ".network-01234567.part.safetensors", ".other-01234567.part.safetensors"
    for names in ([tmp_path / "network.safetensors"], [tmp_path, "network.safetensors"]):
        (tmp_path / left).touch()
        (tmp_path / others).touch()
        with only_writer(*names):
            assert not (tmp_path / left).exists()
            assert (tmp_path / others).exists(), "someone may be writing it now"
