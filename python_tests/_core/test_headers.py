"""What a schema lets in: the messages name the place, what was wanted and what was there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from repsim_fast._core import headers
from repsim_fast._core.headers import Schema


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (headers.text(3), ["", "abc"], ["abcd", 1, None, "\ud800"]),
        (headers.whole(0, 5), [0, 5], [-1, 6, 1.0, True, "1", None, 10**400]),
        (headers.number(0, 5), [0, 5, 2.5, float("nan")], [-0.1, 6, True, "1", 10**400]),
        (headers.truth, [True, False], [0, 1, None]),
        (headers.optional(headers.truth), [True, None], [0]),
        (headers.listed(headers.truth, 2), [[], [True] * 2], [[True] * 3, {}, "", [None]]),
        (headers.named(headers.truth), [{}, {"a": True}], [[], {"a": 1}, {"\ud800": True}]),
        (
            headers.record({"a": headers.truth}, {"b": headers.truth}),
            [{"a": True}, {"a": True, "b": False, "c": 3}],
            [{}, {"b": True}, {"a": True, "b": 3}, {"a": True, "c": "\ud800"}, [], None],
        ),
        (
            headers.free,
            [None, [1, {"a": "b"}], 1e300],
            [2**70, ["\ud800"], json.loads("[" * 30 + "]" * 30)],
        ),
    ],
)
def test_schema(schema: Schema, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        schema(value, "here")
    for value in bad:
        with pytest.raises(ValueError, match=r"^here.*(expected|lacks)") as caught:
            schema(value, "here")
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "9" * 10**4, None, b"\xff"])
def test_no_json(text: str | bytes | None) -> None:
    with pytest.raises(ValueError, match=r"^here: expected"):
        headers.parsed(text, headers.named(headers.free), "here")
