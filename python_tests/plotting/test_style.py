"""Names in pictures."""

from __future__ import annotations

from repsim_fast.plotting.style import plain_names


def test_long_names_stay_apart() -> None:
    names = [f"{'runs' * 10}/method-{kind}/{'seed' * 10}.pt" for kind in ("pgd", "trades", "free")]
    shown = plain_names([*names, "short", "$x$"])
    assert len({*shown}) == 5
    assert all(kind in one for kind, one in zip(("pgd", "trades", "free"), shown, strict=False))
    assert max(map(len, shown)) < 70
    assert shown[3:] == ["short", r"\$x\$"]


def test_what_cannot_be_shown_is_counted() -> None:
    names = ["a" * 40 + middle + "b" * 90 + end + "c" * 40 for middle in "xy" for end in "uv"]
    assert len({*plain_names(names)}) == 4
    assert plain_names(["a" * 99, "a" * 99]) == ["a" * 30 + "…" + "a" * 29] * 2
