"""Signals that ask a process to end: all of them as Ctrl-C does, and none while it is ending."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C's asked the process to end, as schedulers do.

    Attributes:
        number: The signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


def _end(number: int, _: FrameType | None) -> None:
    raise Terminated(number)


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise :class:`Terminated` inside, so that they keep what Ctrl-C keeps.

    One that is ignored (``nohup``) or that the program handles itself stays so.
    """
    with contextlib.ExitStack() as stack:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and _main() and signal.getsignal(number) == signal.SIG_DFL:
                _handle(stack, number, _end)
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP do nothing inside: for the short end of a run that is stopping."""
    with contextlib.ExitStack() as stack:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and _main():
                _handle(stack, number, lambda *_: None)
        yield


def _main() -> bool:
    """Whether this is the thread that gets the signals, and may say what they do."""
    return threading.current_thread() is threading.main_thread()


def _handle(stack: contextlib.ExitStack, number: int, handler: Any) -> None:
    before = signal.signal(number, handler)
    if before is not None:  # None: not set from Python, and not to be set back from it
        stack.callback(signal.signal, number, before)
