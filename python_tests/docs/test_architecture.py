"""The page on the architecture says what the code has."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from docs.draw_architecture import IMAGE, STOPS, Stop, svg

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.title)
def test_every_stop_exists_and_is_spoken_of(stop: Stop) -> None:
    module, _, name = stop.where.partition(":")
    assert hasattr(importlib.import_module(f"repsim_fast.{module}"), name)
    assert f"`{stop.where}`" in PAGE


def test_the_picture_is_that_of_this_code() -> None:
    assert IMAGE.read_text() == svg()


def test_every_room_has_a_line_and_a_purpose() -> None:
    rooms = [path.parent for path in (ROOT / "repsim_fast").glob("*/__init__.py")]
    assert len(rooms) >= 12
    for room in rooms:
        assert f"| `{room.name}` |" in PAGE
        assert importlib.import_module(f"repsim_fast.{room.name}").__doc__
