"""Threads of one process: each gets what it gets alone, and the process is as it was afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from repsim_fast import Capture, compare
from repsim_fast._core import randomness
from repsim_fast._core.randomness import private_rng
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
    monkeypatch.setattr(randomness, "_WORTH_A_WORD", 0.01)
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
