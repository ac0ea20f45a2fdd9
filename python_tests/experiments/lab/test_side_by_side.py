"""Processes beside each other: what becomes of the others when one fails."""

import time
from types import SimpleNamespace

import pytest

from experiments.lab import side_by_side


class Lab:
    """Of two that share a folder the first has a training without end, the second fails."""

    def __init__(self, preset, work, **_):
        self.work = work
        self.networks = SimpleNamespace(share=self.share)

    def share(self, recipes, then):
        begun = self.work / "begun"
        try:
            begun.touch(exist_ok=False)
        except FileExistsError:
            (self.work / "failed").touch()
            raise ValueError("a training that fails") from None
        time.sleep(600)


def test_the_first_failure_stops_the_others(tmp_path):
    with pytest.raises(RuntimeError, match="a process that trained networks ended with status 1"):
        side_by_side.train(Lab, None, tmp_path, {}, processes=2, deadline=None)
    # What it prints goes where the server of forks had its errors when an earlier test began it.
    assert (tmp_path / "failed").exists()
