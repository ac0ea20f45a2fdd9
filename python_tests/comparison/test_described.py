"""Functions that may do something else have other descriptions, the same ones the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.forked import run_python
from repsim_fast.attacks import PGD
from repsim_fast.comparison.described import describe

POWER = 2


def first(x: Tensor, k: int = 1) -> Tensor:
    return x[:, :k]


def powered(x: Tensor) -> Tensor:
    return x**POWER


def through(x: Tensor) -> Tensor:
    return powered(x)


def held(value: Any) -> Callable[[Tensor], Any]:
    return lambda x: (x, value)


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


class Shown:
    """A callable that shows one of its two numbers."""

    def __init__(self, shown: int, hidden: int) -> None:
        self.shown, self.hidden, self.stream = shown, hidden, torch.Generator()

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.shown + self.hidden

    def __repr__(self) -> str:
        return f"Shown({self.shown})"


class Bare(Shown):
    __repr__ = object.__repr__


@pytest.mark.parametrize(
    "make",
    [
        lambda: [lambda x: x + 1, lambda x: x + 2, lambda x: x - 1, lambda x: x.add(1)],
        lambda: [functools.partial(first, k=k) for k in (1, 4)],
        lambda: [functools.partial(first, 1), first, functools.partial(first, k=1)],
        lambda: [held(value) for value in (1, 2, 2.0, "2", (1, 2), [1, 2], {1: 2}, {1, 2}, None)],
        lambda: [held(torch.full((40,), value)) for value in (1.0, 2.0)],
        lambda: [held(np.full((2000,), value)) for value in (1.0, 2.0)],
        lambda: [held(linear(seed)) for seed in (0, 1)],
        lambda: [held(held(value)) for value in (1, 2)],
        lambda: [linear(0), linear(1), nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)],
        lambda: [cls(*numbers) for cls in (Shown, Bare) for numbers in ((1, 2), (1, 3), (2, 2))],
        lambda: [Bare(1, 2).__call__, Bare(2, 2).__call__],
        lambda: [functools.partial(PGD(eps), linear(0)) for eps in (0.1, 0.2)],
        lambda: [PGD(0.1), PGD(0.1, step_size=0.05), PGD(0.1, random_start=False)],
        lambda: [torch.relu, torch.tanh, str.upper, nn.ReLU],
    ],
)
def test_told_apart(make: Callable[[], list[Any]]) -> None:
    one, other = ([describe(value) for value in make()] for _ in range(2))
    assert one == other
    assert len(set(one)) == len(one)
    assert all(len(text) <= 300 and " at 0x" not in text for text in one)


def test_globals_and_functions_that_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [describe(f) for f in (powered, through, first)]
    monkeypatch.setitem(globals(), "POWER", 3)
    after = [describe(f) for f in (powered, through, first)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_names_are_those_of_modules_and_arguments() -> None:
    module = first.__module__
    assert describe("pool") == "pool"
    assert describe(["a", "b"]) == "a, b"
    assert describe(first).startswith(f"{module}.first [")
    assert describe(functools.partial(first, k=4)).startswith(f"partial({module}.first [")
    assert describe(functools.partial(first, k=4)).endswith(", k=4)")
    assert describe(PGD(0.5)).startswith("PGD(eps=0.5, norm='linf', ")


def test_a_state_that_changes_as_it_is_used_does_not_count() -> None:
    attack, x = PGD(0.1, seed=0), torch.rand(4, 3)
    before = describe(attack)
    attack(linear(0), x, torch.zeros(4).long())
    assert describe(attack) == before


def test_long_and_endless_ones() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert describe(held(endless)) != describe(held([]))
    many = [functools.partial(first, "k" * 4000 + end) for end in "ab"]
    assert len({*map(describe, many)}) == 2
    assert all(len(describe(one)) <= 300 for one in many)


def test_the_same_in_every_process() -> None:
    code = """
import torch
from python_tests.comparison.test_described import *
print(describe(held({"a", "b", "c"})), describe(through), describe(held(linear(0))))
"""
    here = f"{describe(held({'a', 'b', 'c'}))} {describe(through)} {describe(held(linear(0)))}"
    assert run_python(code).stdout.strip() == here
