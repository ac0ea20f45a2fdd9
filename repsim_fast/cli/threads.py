"""How many CPU threads to use: as many as there are idle cores."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

# What was long ago says nothing of now.
_SAMPLE_SECONDS, _LONGEST_SECONDS = 0.25, 60.0
_STATISTICS = Path("/proc/stat")
# Columns of a core's line in proc(5): user nice system idle iowait irq softirq ...
_IDLE = slice(3, 5)


class _Reading(NamedTuple):
    """What the system's clocks show: seconds, those of this process on cores, those of cores."""

    time: float
    own: float
    statistics: str

    @classmethod
    def now(cls) -> _Reading | None:
        """None where the system does not tell."""
        try:
            return cls(time.perf_counter(), time.process_time(), _STATISTICS.read_text())
        except OSError:
            return None


# From when a command has begun, and torch is still to be loaded.
_BEGIN = _Reading.now()


def choose_threads(threads: int | None) -> str:
    """Set torch's number of threads, and say which it is.

    More threads than idle cores are far worse than too few: the threads of each operation wait for
    the last of them, spinning, which keeps the very cores busy that it needs. One other process on
    two cores made training with two threads half as fast as with one, several made it 20 times
    slower.

    Args:
        threads: The number wanted; None for as many as there are idle cores, at most torch's own
            choice, which is the number of cores or OMP_NUM_THREADS. That variable is obeyed.
    """
    import torch

    most = torch.get_num_threads()
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = min(most, idle_cores())
    chosen = most if threads is None else threads
    torch.set_num_threads(chosen)
    text = f"{chosen} thread{'s' if chosen > 1 else ''}"
    if chosen >= most:
        return f"{text} used"
    return f"{text} used of {most} (--threads N changes it)"


def idle_cores() -> int:
    """Cores that this process may use and that nothing else has been using; at least 1.

    Since this module was imported, if that is not long ago, which takes no time of its own where
    torch was loaded meanwhile. All usable ones where the system does not tell.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    before = _BEGIN
    since = 0.0 if before is None else time.perf_counter() - before.time
    if since > _LONGEST_SECONDS:
        before, since = _Reading.now(), 0.0
    if before is not None and since < _SAMPLE_SECONDS:
        time.sleep(_SAMPLE_SECONDS)
    after = _Reading.now()
    if usable is None or before is None or after is None:
        return os.cpu_count() or 1
    own = (after.own - before.own) / (after.time - before.time)
    idle = _idle_between(before.statistics, after.statistics, usable) + own
    return max(1, round(min(idle, len(usable))))


def _idle_between(before: str, after: str, cores: set[int]) -> float:
    """How many of ``cores`` were idle on average between two readings of /proc/stat."""
    start, end = _core_times(before), _core_times(after)
    idle = 0.0
    for core in cores & start.keys() & end.keys():
        spent = [b - a for a, b in zip(start[core], end[core], strict=True)]
        idle += sum(spent[_IDLE]) / max(1, sum(spent))
    return idle


def _core_times(statistics: str) -> dict[int, list[int]]:
    lines = (line.split() for line in statistics.splitlines())
    # The line "cpu" adds up all cores; user and nice already contain the guest columns at the end.
    return {
        int(words[0][3:]): [int(word) for word in words[1:9]]
        for words in lines
        if words[0].startswith("cpu") and words[0] != "cpu"
    }
