"""Processes that are killed: forked, since starting a new one would take longer than its work."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CRASHED = 70
HUNG = 124
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code or minus the signal, its output, its time and memory."""

    code: int
    output: str
    seconds: float
    mebibytes: float


class Child:
    """A forked process at its work, of which it may use so many seconds of the processor."""

    def __init__(self, work: Callable[[], int | None], log: Path, *, processor: int = 120) -> None:
        sys.stdout.flush()
        log.write_text("")  # nor may an earlier child's words stand for those of one that had none
        self._log, self._processor, self._began = log, processor, time.monotonic()
        # Signals wait until it has got as far as a new process would before its first line.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        self._number = os.fork()
        if self._number == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
            _work(work, log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        self._ended: Ended | None = None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def send(self, number: int) -> None:
        """Send it a signal, unless it has been seen to have ended."""
        if self._ended is None:
            os.kill(self._number, number)

    def ended(self) -> Ended | None:
        """How it ended; None while it works."""
        if self._ended is None:
            done, status, usage = os.wait4(self._number, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                if code == -signal.SIGKILL and usage.ru_utime + usage.ru_stime >= self._processor:
                    code = HUNG
                memory = usage.ru_maxrss / 1024
                self._ended = Ended(code, self.output, self.seconds, memory)
        return self._ended

    def hung(self) -> Ended:
        """End it, if it has not ended by itself, as one that hangs."""
        if self.ended() is None:
            os.kill(self._number, signal.SIGKILL)
            os.waitpid(self._number, 0)
            self._ended = Ended(HUNG, self.output, self.seconds, 0.0)
        assert self._ended is not None
        return self._ended


def run(
    work: Callable[[], int | None],
    log: Path,
    *,
    number: int | None = None,
    after: float = 0.0,
    processor: int = 120,
    limit: float = 1200.0,
) -> Ended:
    """Do the work in a child, which gets the signal ``number`` after so many seconds.

    It may use so many seconds of the processor, which says more of a busy machine than the time on
    the wall; that is bounded for children that wait for ever.
    """
    child = Child(work, log, processor=processor)
    sent = False
    while (ended := child.ended()) is None:
        if number is not None and not sent and child.seconds >= after:
            child.send(number)
            sent = True
        if child.seconds > limit:
            return child.hung()
        time.sleep(0.001)
    return ended


def _work(work: Callable[[], int | None], log: Path) -> None:
    code = CRASHED
    try:
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(number, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        code = work() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:  # before the program could say anything
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(*arguments: object) -> Callable[[], int | None]:
    """The command line, as `repsim-fast` runs it."""
    from repsim_fast.cli.app import app

    words: Sequence[str] = [str(argument) for argument in arguments]
    return lambda: app(list(words), prog_name="repsim-fast")


def import_what_is_needed(folder: Path) -> None:
    """Import here what commands import, or each child would do it anew for most of its time.

    Nothing may run here: what backward passes start does not survive a fork.
    """
    names, out = folder / "modules", folder / "n.safetensors"
    small = ["--data", "digits", "--limit", 40, "--threads", 1]
    train = ["train", *small, "--model", "resnet-8", "--epochs", 1, "--test-limit", 10]
    for words in (
        [*train, "--out", out],
        ["compare", out, "resnet-8", *small, "--out", folder / "compared"],
        ["attack", out, *small, "--attack", "pgd", "--steps", 1, "--out", folder / "a.safetensors"],
    ):
        run(_noting(command(*words), names), folder / "log")
        for name in names.read_text().split():
            # Of some packages, parts cannot be imported by themselves.
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _noting(work: Callable[[], int | None], names: Path) -> Callable[[], int | None]:
    def noted() -> int | None:
        try:
            return work()
        finally:
            names.write_text("\n".join(name for name in sys.modules if name != "__main__"))

    return noted
