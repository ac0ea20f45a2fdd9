"""Threads of one process: each gets what it gets alone, and the process is as it was afterwards.

So does a child that is forked while they work.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import repsim_fast
from repsim_fast import Capture, compare
from repsim_fast._core import randomness
from repsim_fast._core.cached import cached
from repsim_fast._core.kept_memory import kept_memory
from repsim_fast._core.model_state import eager
from repsim_fast._core.randomness import private_rng
from repsim_fast._core.threads import Turns, WhileUsed
from repsim_fast.attacks import PGD

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))


def test_seeded_attacks_of_threads_are_those_of_one() -> None:
    images, labels = torch.rand(20, 12), torch.arange(20) % 3
    shared = network()

    def attacked(seed: int) -> torch.Tensor:
        attack = PGD(0.1, steps=5, seed=seed, model_mode="train")
        return attack(shared, images, labels)

    alone = [attacked(seed) for seed in range(8)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(attacked, range(8)), strict=True):
                assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_comparisons_of_threads_leave_model_and_process_as_they_were() -> None:
    shared, images = network().train(), torch.rand(40, 12)
    fast = torch.backends.mha.get_fastpath_enabled()
    alone = compare(shared, shared, images, batch_size=10).value
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: compare(shared, shared, images, batch_size=10), range(16)):
            assert (result.value == alone).all()
    assert all(module.training for module in shared.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast


@pytest.mark.parametrize("fast", [True, False])
def test_overlapping_captures_give_the_fast_path_back(fast: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        first, second = Capture(network()), Capture(network())
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert not torch.backends.mha.get_fastpath_enabled(), "the second one still needs it so"
        second.__exit__(None, None, None)
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_a_long_wait_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness._turn, "after", 0.01)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with private_rng(CPU, 0):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    threading.Timer(0.2, leave.set).start()
    with pytest.warns(UserWarning, match="waiting for another thread"), private_rng(CPU, 1):
        pass
    thread.join()


class Slow:
    """An object with an attribute that takes as long as it is told to."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait, self.times = wait, 0

    @cached
    def number(self) -> int:
        """Seven."""
        self._wait()
        self.times += 1
        return 7


def test_attributes_are_computed_once_and_documented() -> None:
    one = Slow(lambda: None)
    assert (one.number, one.number, one.times) == (7, 7, 1)
    assert Slow.number.__doc__ == "Seven."


def test_threads_do_not_wait_for_attributes_of_other_objects() -> None:
    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(lambda: Slow(lambda: both.wait(20)).number) for _ in range(2)]
        assert [one.result() for one in asked] == [7, 7]


def test_no_attribute_of_the_library_has_a_lock_of_its_class() -> None:
    sources = Path(repsim_fast.__file__).parent.rglob("*.py")
    assert not [path for path in sources if re.search(r"@.*cached_property", path.read_text())]


@contextmanager
def elsewhere(work: Callable[[threading.Event, threading.Event], None]) -> Iterator[None]:
    """Another thread is in the middle of its work within; it sets one event and waits for one."""
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=(inside, leave))
    thread.start()
    try:
        assert inside.wait(20)
        yield
    finally:
        leave.set()
        thread.join()


def forked(work: Callable[[], bool]) -> bool:
    """Whether a forked child says so within twenty seconds."""
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(not work()))
    child.start()
    child.join(20)
    if child.exitcode is None:
        child.kill()
        child.join()
    return child.exitcode == 0


def hold(context: Any) -> Callable[[threading.Event, threading.Event], None]:
    def within(inside: threading.Event, leave: threading.Event) -> None:
        with context():
            inside.set()
            leave.wait()

    return within


def test_a_child_does_not_wait_for_attributes_of_threads_it_does_not_have() -> None:
    def ask(inside: threading.Event, leave: threading.Event) -> None:
        def wait() -> None:
            inside.set()
            leave.wait()

        assert Slow(wait).number == 7

    with elsewhere(ask):
        assert forked(lambda: Slow(lambda: None).number == 7)


def test_a_child_does_not_wait_for_turns_of_threads_it_does_not_have() -> None:
    turn = Turns()

    def take() -> bool:
        with turn():
            return True

    with elsewhere(hold(turn)):
        assert forked(take)
    with turn():  # its own one it keeps, and leaves
        assert forked(take)
    assert take()


def test_settings_of_threads_that_a_child_does_not_have_are_taken_back_there() -> None:
    log: list[str] = []
    used = WhileUsed(lambda first: log.append(f"made {first}"), lambda: log.append("taken back"))

    with elsewhere(hold(used)):
        assert log == ["made True"]
        assert forked(lambda: log == ["made True", "taken back"])
        with used():
            assert log == ["made True", "made False"]
            assert forked(lambda: log == ["made True", "made False"]), "the child is within, too"
    assert log == ["made True", "made False", "taken back"]

    log.clear()
    context = used()
    context.__enter__()

    def leave() -> bool:
        context.__exit__(None, None, None)
        return log == ["made True", "taken back"]

    assert forked(leave)
    assert leave()


def test_a_setting_that_cannot_be_made_is_not_taken_back() -> None:
    def fail(first: bool) -> None:
        raise OSError("no")

    log: list[str] = []
    used = WhileUsed(fail, lambda: log.append("taken back"))
    for _ in range(2):
        with pytest.raises(OSError, match="no"), used():
            pass
    assert not log


@pytest.mark.parametrize("context", [eager, lambda: kept_memory(CPU)], ids=["eager", "kept"])
def test_a_child_may_use_settings_that_another_thread_uses(context: Any) -> None:
    fast = torch.backends.mha.get_fastpath_enabled()

    def within_and_out() -> bool:
        with context():
            pass
        return torch.backends.mha.get_fastpath_enabled() == fast

    with elsewhere(hold(context)):
        assert forked(within_and_out)


def test_a_child_compares_while_another_thread_compares() -> None:
    images, shared = torch.rand(40, 12), network()
    expected = compare(shared, shared, images, batch_size=10).value

    class Waiting(nn.Module):
        def __init__(self, inside: threading.Event, leave: threading.Event) -> None:
            super().__init__()
            self.layer, self.inside, self.leave = nn.Linear(12, 3), inside, leave

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.inside.set()
            self.leave.wait()
            return self.layer(images)

    def other(inside: threading.Event, leave: threading.Event) -> None:
        one = Waiting(inside, leave)
        compare(one, one, images, batch_size=10)

    with elsewhere(other):
        again = lambda: compare(shared, shared, images, batch_size=10).value  # noqa: E731
        assert forked(lambda: bool((again() == expected).all()))
