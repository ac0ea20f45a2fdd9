"""One comparison by several processes: each reads and runs its share of the batches, the first one
makes the result of all, and all return it.

Batch i belongs to the process of rank i mod size. After each of its batches a process says that it
goes on, and waits for what the others said one batch before: so that a failure ends all of them
within two batches, and none waits for what will not come.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from repsim_fast._core.nested import tensors_in
from repsim_fast._core.processes import Processes
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.engine import Engine
from repsim_fast.comparison.plan import Run
from repsim_fast.data.batches import Feed
from repsim_fast.data.fingerprint import Fingerprint, digest_of, share_samples
from repsim_fast.data.order import OrderCheck
from repsim_fast.similarity.base.accumulator import Accumulator

Value = TypeVar("Value")


class OtherProcessError(RuntimeError):
    """Another process of the comparison has failed, or cannot be reached any more."""


class _Failure(NamedTuple):
    """An exception of a process, as the others are told of it."""

    kind: str
    text: str


class Together:
    """What the processes of one comparison tell one another; one alone tells nothing.

    A context manager around the whole comparison: an exception inside ends all of them.

    Args:
        processes: Who takes part; all of them make one.

    Attributes:
        processes: The same.
        heard: Whether the others will hear next what this process has to say: not in the middle of
            what they do together, and not when all is over.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.heard = processes.size > 1
        self._in_batches = False
        self._going_on = False  # whether processes say after each batch how far they are
        self._pending: tuple[Tensor, Any] | None = None  # what was said last, and its sending
        self._saying = False  # in the middle of what the others take part in

    def __enter__(self) -> Together:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.heard and self._can_tell(error):
            self._tell(error)

    def start(self, what: Mapping[str, Any]) -> None:
        """Begin with the batches of several processes, if all are to compare the same.

        Raises:
            ValueError: They are not.
        """
        found = self.gather(dict(what))
        for rank, other in enumerate(found):
            for name, value in found[0].items():
                if other[name] != value:
                    self.heard = False  # all of them find it
                    raise ValueError(
                        f"process_group: expected the same {name} in all processes, got {value!r} "
                        f"in process 0 and {other[name]!r} in process {rank}"
                        f"{_HINTS.get(name, '')}"
                    )
        self._in_batches = self._going_on = True

    def end_batch(self) -> None:
        """Say that this process goes on.

        Raises:
            OtherProcessError: Another one has failed.
        """
        if self._going_on and self._say():
            self.gather(None)

    def end_batches(self) -> None:
        """Say that this process has no batch left, and wait until none has.

        Raises:
            OtherProcessError: Another one has failed.
        """
        while self._going_on:
            if self._say(finished=True):
                self.gather(None)
        self._in_batches = False

    def all_stopped(self, error: BaseException) -> bool:
        """After an exception between batches: whether all processes have stopped by it, so that
        they can say what they had."""
        if self.processes.size == 1:
            return True
        if not (self._in_batches and self._can_tell(error)):
            return False
        if self.heard:
            self._tell(error)
        self._in_batches = False
        return self._pending is None

    def gather(self, value: Value) -> list[Value]:
        """What each process has.

        Raises:
            OtherProcessError: One has failed.
        """
        found = self._reach(lambda: self.processes.gather(value))
        for rank, one in enumerate(found):
            if isinstance(one, _Failure):
                self.heard = False
                raise self._failed(rank, one)
        return found

    def of_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, in all of them, as the last that they do together.

        Raises:
            OtherProcessError: It has failed, and this is another.
        """
        self.heard = False
        if self.processes.size == 1:
            return make()
        made: Any = None
        failure: Exception | None = None
        if self.processes.first:
            try:
                made = make()
            except Exception as error:
                made, failure = _Failure(type(error).__name__, str(error)), error
        sent = self._reach(lambda: self.processes.from_first(made))
        if failure is not None:
            raise failure
        if isinstance(sent, _Failure):
            raise self._failed(0, sent)
        return sent  # type: ignore[no-any-return]

    def _failed(self, rank: int, failure: _Failure) -> OtherProcessError:
        return OtherProcessError(
            f"process {rank} of {self.processes.size} failed, and with it the comparison: "
            f"{failure.kind}: {failure.text}"
        )

    def _can_tell(self, error: BaseException) -> bool:
        """Not where a process was interrupted, or told to exit, while it said something."""
        return isinstance(error, Exception) or not self._saying

    def _tell(self, error: BaseException) -> None:
        """End the others by an exception of this process, at what they say or gather next."""
        failure: Any = _Failure(type(error).__name__, str(error))
        with contextlib.suppress(OtherProcessError):
            while self._going_on:
                self._say(failed=True)
            self._reach(lambda: self.processes.gather(failure))
        self.heard = False

    def _say(self, *, failed: bool = False, finished: bool = False) -> bool:
        """Say how far this process is; whether one has failed. If one has or all have finished,
        this was the last time, for all alike."""
        state = torch.tensor([failed, finished], dtype=torch.int64, device=self.processes.device)
        group = self.processes.group
        sending = self._reach(lambda: dist.all_reduce(state, group=group, async_op=True))
        before, self._pending = self._pending, (state, sending)
        if before is None:
            return False
        n_failed, n_finished = self._arrived(*before)
        if n_failed or n_finished == self.processes.size:
            self._arrived(state, sending)
            self._going_on, self._pending = False, None
        return n_failed > 0

    def _arrived(self, state: Tensor, sending: Any) -> list[int]:
        self._reach(sending.wait)
        return [int(number) for number in state.tolist()]

    def _reach(self, call: Callable[[], Value]) -> Value:
        """Do what needs the others.

        Raises:
            OtherProcessError: One cannot be reached.
        """
        self._saying = True
        try:
            found = call()
            self._saying = False
            return found
        except RuntimeError as error:
            self.heard = self._going_on = self._in_batches = False
            raise OtherProcessError(
                f"process {self.processes.rank} of {self.processes.size} cannot reach the others: "
                f"one was killed or lost its connection ({str(error).splitlines()[0][:200]})"
            ) from error


_HINTS = {
    "weights": ": load the same checkpoint everywhere, or seed before the models are made",
    "data": ": hand the same data to all of them, of which each reads its share",
    "contents of the data": ": hand the same data to all of them, of which each reads its share",
    "order of the data": ": give each loader a generator with the same seed, or none",
}
# What may differ between the machines of a cluster.
_OWN = ("device", "threads")


def same_everywhere(settings: Mapping[str, Any], feed: Feed, data: Any) -> dict[str, Any]:
    """What must be the same in all processes for their batches to be of one comparison."""
    same = {name: value for name, value in settings.items() if name not in _OWN}
    held = tensors_in(data) if isinstance(data, (Tensor, tuple)) else ()
    return {**same, "contents of the data": digest_of(held), "order of the data": feed.drawn_by}


class Seen(NamedTuple):
    """What has been seen of the data.

    Attributes:
        dropped: Samples of batches too small for the measure.
        prints: The samples themselves.
        check: What they tell of their order; None for a random one.
    """

    dropped: list[int]
    prints: Fingerprint
    check: OrderCheck | None


@dataclass(frozen=True)
class Collected:
    """What all processes have seen, and what one must know of it.

    Attributes:
        seen: Of the data.
        n_batches: Batches that count.
        notes: On models and samples.
        failure: Why this process could not take what the others sent.
    """

    seen: Seen
    n_batches: int
    notes: Sequence[str]
    failure: Exception | None = None


def collect(
    engine: Engine,
    accumulator: Accumulator,
    seen: Seen,
    together: Together,
    *,
    each_once: bool,
) -> Collected:
    """Make the first process's accumulator what one would be that had been given all batches.

    Args:
        engine: Of this process.
        accumulator: Of this process, which its engine has fed.
        seen: By this process.
        together: The processes, which all call this.
        each_once: Whether a sample should be seen once.

    Raises:
        ValueError: No batch that counts, or layers that not all batches brought.
    """
    if together.processes.size == 1:
        return Collected(seen, engine.n_batches, engine.notes)
    layers = [(run.rows, run.skipped) for run in engine.runs]
    # Without the ids that are still to come, which cannot be sent.
    own = seen._replace(prints=Fingerprint.joined([seen.prints]))
    all_layers, counts, all_seen = zip(
        *together.gather((layers, engine.n_batches, own)), strict=True
    )
    together.heard = False
    joined = Seen(
        [n for some in all_seen for n in some.dropped],
        Fingerprint.joined([some.prints for some in all_seen]),
        None if seen.check is None else OrderCheck.joined([some.check for some in all_seen]),
    )
    if not any(counts):
        raise diagnosis.no_batch(joined.dropped, accumulator.min_samples)
    _keep_common(engine.runs, [own for own, n in zip(all_layers, counts, strict=True) if n > 0])
    rows = [row for run in engine.runs for row in run.rows.values()]
    failure: Exception | None = None
    try:
        accumulator.pool(rows, together.processes)
    except Exception as error:
        failure = error
    new = itertools.count()
    for run in engine.runs:
        run.rows = {name: next(new) for name in run.rows}
    notes = [note for some in together.gather(engine.notes) for note in some]
    if each_once and (both := _overlapping([some.prints for some in all_seen])):
        notes.append(diagnosis.read_twice(*both))
    return Collected(joined, sum(counts), list(dict.fromkeys(notes)), failure)


def _keep_common(
    runs: Sequence[Run], found: Sequence[Sequence[tuple[dict[str, int], dict[str, str]]]]
) -> None:
    """Leave the layers that all processes have, in one order for all, in the rows of the runs."""
    for number, run in enumerate(runs):
        own = [layers[number] for layers in found]
        run.skipped = {name: why for _, skipped in reversed(own) for name, why in skipped.items()}
        for name in dict.fromkeys(name for rows, _ in own for name in rows):
            if not all(name in rows for rows, _ in own):
                run.skipped.setdefault(name, "not called in every batch")
        if run.layers is not None:
            for name, why in run.skipped.items():
                raise diagnosis.unfit(run, name, why)
        run.rows = {name: run.rows.get(name, 0) for name in own[0][0] if name not in run.skipped}
        diagnosis.check_any_layer(run)


def _overlapping(prints: Sequence[Fingerprint]) -> tuple[int, int] | None:
    """Two processes that have read the same samples."""
    for one, some in enumerate(prints):
        for other, others in enumerate(prints[:one]):
            if share_samples(some.samples, others.samples):
                return other, one
    return None
