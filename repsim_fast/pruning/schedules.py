"""Sparsities of iterative pruning, round by round."""

from __future__ import annotations

from typing import Literal

from repsim_fast._core.checks import check_choice, check_whole

from .selection import check_sparsity


def sparsities(
    target: float,
    rounds: int,
    *,
    schedule: Literal["geometric", "linear", "cubic"] = "geometric",
) -> list[float]:
    """Sparsity after each of some rounds of pruning and training; the last is the target.

    With t the target and u the share of rounds done: geometric 1 - (1 - t)^u, the same share of
    what is left in each round; linear t u; cubic t (1 - (1 - u)^3), most of it early.

    Args:
        target: In [0, 1).
        rounds: At least 1.
        schedule: Name of the formula.

    Returns:
        One sparsity a round, rising.

    Raises:
        TypeError: A target that is no number, rounds that are not whole.
        ValueError: Out of range, or no such schedule.

    Example:
        >>> from repsim_fast import pruning
        >>> pruning.sparsities(0.75, 2)
        [0.5, 0.75]

    References:
        Zhu & Gupta, "To prune, or not to prune", 2017 (cubic).
    """
    check_sparsity(target)
    check_whole(rounds=rounds)
    check_choice("schedule", schedule, ("geometric", "linear", "cubic"))
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    shares = [done / rounds for done in range(1, rounds)]
    match schedule:
        case "geometric":
            between = [1 - (1 - target) ** share for share in shares]
        case "linear":
            between = [target * share for share in shares]
        case _:
            between = [target * (1 - (1 - share) ** 3) for share in shares]
    return [*between, target]
