"""How much memory something takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Largest anonymous memory (GiB) while the block runs; mapped files do not count."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            lines = Path("/proc/self/status").read_text().splitlines()
            anonymous = next(int(x.split()[1]) for x in lines if x.startswith("RssAnon"))
            peak[0] = max(peak[0], anonymous / 2**20)
            sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
