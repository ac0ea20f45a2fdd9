"""Changes of a file: bytes, pieces, lengths, and values inside the JSON that it holds."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

# What readers are known to stumble over.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, -(2**63), 2**64, 10**30, 1.5, -0.0,
    float("nan"), float("inf"), 1e308, "", "a", "../../x", "/etc/passwd", "a" * 5000, "\ud800",
    "\x00", "<script>alert(1)</script>", "=1+1", [], [[]], {}, {"a": 1}, [None], [-1], {"": {}},
)  # fmt: skip
# What fits into the container's own header: shapes, offsets, kinds of numbers.
_NUMBERS = (
    *range(9),
    16,
    64,
    2**31,
    "F16",
    "F32",
    "F64",
    "I64",
    "BF16",
    "BOOL",
    "U8",
    [],
    [0],
    [1, 1],
)
LENGTHS = (0, 1, 7, 8, 127, 2**16, 2**31 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(content: bytes, dice: random.Random, *, text: bool = False) -> bytes:
    """One to four changes.

    Most of them keep the container whole, be it safetensors or JSON, so that they come through to
    what reads its contents.
    """
    raw = [_bits, _bytes, _cut, _insert, _repeat, _swap, _number, _header]
    inside = [_json_text] if text else [_json_header] * 5 + [_data]
    kinds = inside if dice.random() < 0.7 else raw
    for _ in range(dice.choice((1, 1, 1, 2, 3, 4))):
        content = dice.choice(kinds)(content, dice)
    return content


def _data(content: bytes, dice: random.Random) -> bytes:
    """Of a safetensors file: bits of the tensors."""
    start = 8 + int.from_bytes(content[:8], "little")
    if start >= len(content):
        return _bits(content, dice)
    return content[:start] + _bits(content[start:], dice)


def _bits(content: bytes, dice: random.Random) -> bytes:
    return _at(content, dice, lambda byte: byte ^ (1 << dice.randrange(8)))


def _bytes(content: bytes, dice: random.Random) -> bytes:
    return _at(content, dice, lambda _: dice.choice((0, 255, 127, 128, dice.randrange(256))))


def _at(content: bytes, dice: random.Random, change: Any) -> bytes:
    if not content:
        return b"\x00"
    changed = bytearray(content)
    # Headers lie at the start of most formats.
    end = len(changed) if dice.random() < 0.5 else min(len(changed), 200)
    for _ in range(dice.choice((1, 1, 4, 30))):
        place = dice.randrange(end)
        changed[place] = change(changed[place])
    return bytes(changed)


def _cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _insert(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content) + 1)
    return content[:place] + dice.randbytes(dice.choice((1, 8, 100))) + content[place:]


def _repeat(content: bytes, dice: random.Random) -> bytes:
    start, end = _piece(content, dice)
    return content[:end] + content[start:end] * dice.choice((1, 2, 20)) + content[end:]


def _swap(content: bytes, dice: random.Random) -> bytes:
    start, end = _piece(content, dice)
    return content[end:] + content[start:end] + content[:start]


def _piece(content: bytes, dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(len(content) + 1)
    return start, min(len(content), start + dice.choice((1, 16, 200)))


def _number(content: bytes, dice: random.Random) -> bytes:
    place = 0 if dice.random() < 0.3 else dice.randrange(len(content) + 1)
    order = dice.choice(("<Q", ">Q"))
    return content[:place] + struct.pack(order, dice.choice(LENGTHS)) + content[place + 8 :]


def _header(content: bytes, dice: random.Random) -> bytes:
    return (
        dice.choice((b"", b"\x80\x04", b"{", b"[" * 100_000, b"\x00" * 64))
        + content[dice.choice((0, 0, 4)) :]
    )


def _json_header(content: bytes, dice: random.Random) -> bytes:
    """Of a safetensors file: a value somewhere in its header, or in the JSON in its metadata."""
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        texts = header.get("__metadata__", {})
        if texts and dice.random() < 0.8:
            # The long ones hold more.
            name = dice.choices(sorted(texts), [len(texts[k]) for k in sorted(texts)])[0]
            texts[name] = _json_text(texts[name].encode(), dice).decode(errors="replace")
        else:
            header = _elsewhere(header, dice, _NUMBERS)
        written = json.dumps(header).encode(errors="replace")
        return struct.pack("<Q", len(written)) + written + content[8 + size :]
    except (ValueError, struct.error, AttributeError, KeyError, TypeError, RecursionError):
        return _bits(content, dice)


def _json_text(content: bytes, dice: random.Random) -> bytes:
    try:
        return json.dumps(_elsewhere(json.loads(content), dice)).encode(errors="replace")
    except (ValueError, RecursionError):
        return _bits(content, dice)


def _elsewhere(value: Any, dice: random.Random, others: Sequence[Any] = VALUES) -> Any:
    """The value with a hostile one somewhere inside, or with an entry fewer or twice."""
    if dice.random() < 0.1 or not isinstance(value, (dict, list)) or not value:
        return dice.choice(others)
    changed = value.copy()
    key = dice.choice(sorted(changed)) if isinstance(changed, dict) else dice.randrange(len(value))
    what = dice.random()
    if what < 0.15:
        del changed[key]
    elif what < 0.25:
        if isinstance(changed, dict):
            changed[str(dice.choice(VALUES))] = changed[key]
        else:
            changed.insert(key, changed[key])
    else:
        changed[key] = _elsewhere(changed[key], dice, others)
    return changed
