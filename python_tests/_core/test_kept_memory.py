"""Memory kept between steps: within, and given back at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from python_tests.support.forked import run_python
from repsim_fast._core import kept_memory as module
from repsim_fast._core.kept_memory import kept_memory

CPU = torch.device("cpu")
BLOCK = 256 * 2**20

pytestmark = pytest.mark.skipif(
    module._tunable_malloc() is None, reason="no glibc whose malloc is to be tuned"
)


def held() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def after_use() -> int:
    """What the process has after it has used and freed a block, in bytes beyond before."""
    before = held()
    block = torch.ones(BLOCK // 4)
    del block
    return held() - before


def test_kept_until_the_outermost_ends() -> None:
    """In a process of its own: what other tests freed may serve a block, too."""
    program = "from python_tests._core import test_kept_memory as t; t.kept_until_outermost_ends()"
    found = run_python(program, cwd=Path(__file__).resolve().parents[2])
    assert found.returncode == 0, found.stderr


def kept_until_outermost_ends() -> None:
    before = held()
    assert after_use() < BLOCK / 4
    with kept_memory(CPU):
        with kept_memory(CPU):
            assert after_use() > BLOCK / 2
        assert held() - before > BLOCK / 2
    assert held() - before < BLOCK / 4
    assert after_use() < BLOCK / 4


def test_given_back_after_an_exception() -> None:
    def fail() -> None:
        with kept_memory(CPU):
            after_use()
            raise KeyError

    before = held()
    with pytest.raises(KeyError):
        fail()
    assert held() - before < BLOCK / 4


def test_elsewhere_nothing() -> None:
    with kept_memory(torch.device("cuda")):
        assert after_use() < BLOCK / 4


@pytest.fixture
def _anew() -> Iterator[None]:
    module._tunable_malloc.cache_clear()
    yield
    module._tunable_malloc.cache_clear()


@pytest.mark.usefixtures("_anew")
def test_settings_of_the_environment_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")
    with kept_memory(CPU):
        assert after_use() < BLOCK / 4
