"""What the threads of a process share, also where the process forks while they do.

A forked child has the thread alone that forked: a lock that another one held is never given back,
a setting that another one made is never taken back. Those here are.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any


class Turns:
    """A context that one thread at a time is in, which may be for long, and may enter again.

    Args:
        said: warned of where a thread has waited for ``after`` seconds.
        after: seconds.
    """

    def __init__(self, said: str = "", *, after: float = 30.0) -> None:
        self._said, self.after = said, after
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """It is this thread's turn within."""
        lock = self._lock  # a child that forks within leaves this one, not its own
        self._wait(lock)
        try:
            yield
        finally:
            lock.release()

    def _wait(self, lock: Any) -> None:
        if self._said:
            if lock.acquire(timeout=self.after):
                return
            warnings.warn(self._said, stacklevel=3)
        lock.acquire()

    def _renew(self) -> None:
        self._lock = threading.RLock()


class WhileUsed:
    """A context: the first one in makes a setting of the process, the last one out takes it back.

    The two may be of different threads.

    Args:
        make: called as each one comes in, with whether nobody was within.
        take_back: called when the last one has gone.
    """

    def __init__(self, make: Callable[[bool], None], take_back: Callable[[], None]) -> None:
        self._make, self._take_back = make, take_back
        self._within: Counter[int] = Counter()  # by thread
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            # Held while the process forks: nobody else is halfway in or out.
            os.register_at_fork(
                before=lambda: self._lock.acquire() and None,
                after_in_parent=lambda: self._lock.release(),
                after_in_child=self._in_child,
            )

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """The setting is made within."""
        thread = threading.get_ident()
        with self._lock:
            self._make(not self._within)
            self._within[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._within[thread] -= 1
                self._forget(lambda left: self._within[left] <= 0)

    def _in_child(self) -> None:
        mine = threading.get_ident()
        self._forget(lambda thread: thread != mine)
        self._lock = threading.RLock()

    def _forget(self, gone: Callable[[int], bool]) -> None:
        before = len(self._within)
        for thread in [thread for thread in self._within if gone(thread)]:
            del self._within[thread]
        if before and not self._within:
            self._take_back()
