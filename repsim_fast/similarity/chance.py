"""Values against those of unrelated representations: chance levels and calibrated measures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repsim_fast.similarity.base.measure import (
    Measure,
    as_measure,
    check_count,
    check_range,
)
from repsim_fast.similarity.base.pairs import Pairs, all_pairs, filled
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.inference import as_alike, null_values, permuted, representations
from repsim_fast.similarity.streaming.samples import SampleMeasure


@dataclass(frozen=True, eq=False)
class Calibration:
    """Values of all pairs beside those of representations whose samples do not correspond.

    Attributes:
        value: (L, M) float64.
        chance: (L, M), mean over permutations.
        threshold: (L, M), what one permutation in 1/alpha reaches.
        calibrated: (L, M) in [0, 1], 0 up to the threshold, 1 at the largest similarity there is.
        p_value: (L, M) in (0, 1], one-sided, small for pairs more alike than chance. Of several
            pairs each for itself: a search for the best pair needs a correction.
    """

    value: Tensor
    chance: Tensor
    threshold: Tensor
    calibrated: Tensor
    p_value: Tensor


def chance_level(
    measure: str | Measure[Any],
    xs: Sequence[Tensor | Prepared],
    ys: Sequence[Tensor | Prepared] | None = None,
    *,
    permutations: int = 100,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """Mean value of all pairs when their samples do not correspond.

    Where features are many for the samples, unrelated representations look alike to most measures:
    this is how much. Samples of the second of a pair are permuted at random; nothing is factorised
    again. The mean is uncertain by about its spread over √permutations.

    Args:
        measure: Name, or a measure from `get_measure`.
        xs: Representations (n, p_i) of the same n samples.
        ys: Others of the same samples. Default: ``xs`` among themselves.
        permutations: Number of permutations, at least 1.
        seed: Seed of the permutations; global random state is not touched.
        **options: Options of the measure, if it is given by name.

    Returns:
        (len(xs), len(ys)) float64.

    Raises:
        ValueError: As for `grid`; permutations out of range; a measure that does not see which
            samples correspond.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import chance_level
        >>> x, y = torch.randn(100, 30), torch.randn(100, 30)
        >>> bool(chance_level("cca", [x], [y]) > 0.4)
        True
    """
    # Of the threshold nothing is used; this one asks for the fewest permutations.
    found = calibrate(measure, xs, ys, permutations=permutations, alpha=0.5, seed=seed, **options)
    return found.chance


def calibrate(
    measure: str | Measure[Any],
    xs: Sequence[Tensor | Prepared],
    ys: Sequence[Tensor | Prepared] | None = None,
    *,
    permutations: int = 199,
    alpha: float = 0.05,
    seed: int = 0,
    **options: Any,
) -> Calibration:
    """Values of all pairs with their chance levels, p-values and calibrated values.

    The threshold τ is the ⌈(1 - α)(K + 1)⌉-th least alike of the value and those of K permutations.
    With b the value of perfect agreement (1 for similarities, 0 for distances), the calibrated
    value is (value - τ) / (b - τ), cut off at 0: unrelated representations have 0 but for one
    pair in 1/α, whatever their widths and the number of samples.

    Args:
        measure: Name, or a measure from `get_measure`.
        xs: Representations (n, p_i) of the same n samples.
        ys: Others of the same samples. Default: ``xs`` among themselves.
        permutations: K, at least 1/α - 1.
        alpha: Share of unrelated pairs above the threshold, in (0, 1).
        seed: Seed of the permutations; global random state is not touched.
        **options: Options of the measure, if it is given by name.

    Returns:
        Matrices (len(xs), len(ys)) float64.

    Raises:
        ValueError: As for `grid`; permutations or alpha out of range; a measure that does not see
            which samples correspond, or without a largest similarity.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import calibrate
        >>> x = torch.randn(100, 30)
        >>> result = calibrate("cca", [x, x + 2 * torch.randn(100, 30)])
        >>> bool(result.value[0, 1] > result.calibrated[0, 1])
        True

    References:
        Gröger et al., "Revisiting the Platonic representation hypothesis: an Aristotelian view",
        2026, algorithm 1.
        Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    chosen = Calibrated(
        as_measure(measure, options), permutations=permutations, alpha=alpha, seed=seed
    )
    left, right = representations(chosen, xs, ys)
    ours = [chosen.view(x) for x in left]
    theirs = ours if right is None else [chosen.view(y) for y in right]
    mirrored = right is None and chosen.info.symmetric
    pairs = all_pairs(len(ours), len(theirs), mirrored=mirrored)
    found = chosen.calibration(ours, theirs, pairs)

    def matrix(values: Tensor) -> Tensor:
        empty = values.new_empty(len(ours), len(theirs))
        return filled(empty, pairs, values, mirrored=mirrored)

    return Calibration(*(matrix(getattr(found, f.name)) for f in dataclasses.fields(found)))


@dataclass(frozen=True, eq=False)
class _Counted:
    """A view and its number of samples."""

    view: Any
    samples: int
    dtype: torch.dtype

    def take(self, rows: Tensor) -> _Counted:
        """The view after a permutation of samples."""
        return _Counted(self.view.take(rows), self.samples, self.dtype)


@dataclass(frozen=True)
class Calibrated(SampleMeasure[_Counted]):
    """Another measure relative to chance, see `calibrated`."""

    measure: Measure[Any]
    permutations: int = 199
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0.0, 1.0, open_low=True)
        least = max(1, math.ceil(1 / self.alpha) - 1)
        check_count("permutations", self.permutations, least, 2**31, f" for alpha {self.alpha:g}")
        plain = self.measure.info
        if not math.isfinite(_best(self.measure)):
            raise ValueError(f"measure: {plain.name} has no value of perfect agreement")
        info = dataclasses.replace(
            plain,
            name=f"calibrated {plain.name}",
            title=f"calibrated {plain.title}",
            kind="similarity",
            formula=f"(v - τ) / (b - τ), at least 0, v the value of {plain.name}, τ that which one "
            "permutation of samples in 1/alpha reaches, b that of perfect agreement",
            low=0.0,
            high=1.0,
            differentiable="no",
            cost=f"{plain.cost}, the latter for each permutation",
            source="Gröger et al. 2026",
            of_itself=None if plain.of_itself is None else 1.0,
            metric=False,
        )
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "min_samples", self.measure.min_samples)

    def view(self, x: Prepared) -> _Counted:
        """View of the measure itself."""
        return _Counted(self.measure.view(x), x.n_samples, x.features.dtype)

    def pairs(self, left: Sequence[_Counted], right: Sequence[_Counted], pairs: Pairs) -> Tensor:
        """Calibrated values."""
        return self.calibration(left, right, pairs).calibrated

    def calibration(
        self, left: Sequence[_Counted], right: Sequence[_Counted], pairs: Pairs
    ) -> Calibration:
        """All about pairs (len(pairs),)."""
        ours = [each.view for each in left]
        theirs = ours if left is right else [each.view for each in right]
        info, best = self.measure.info, _best(self.measure)
        value = self.measure.pairs(ours, theirs, pairs).double().detach()
        if left is right and info.of_itself is not None:
            same = torch.tensor([i == j for i, j in pairs], device=value.device)
            value = value.where(~same, info.of_itself)
        orders = permuted(left[0].samples, self.permutations, self.seed)
        null = torch.cat(
            [v.detach() for v in null_values(self.measure, ours, theirs, pairs, orders)]
        )
        alike = as_alike(self.measure, value, null, left[0].dtype).sum(dim=0)
        sign = 1 if info.kind == "similarity" else -1
        rank = math.ceil((1 - self.alpha) * (1 + self.permutations))
        threshold = sign * (sign * torch.cat([value[None], null])).kthvalue(rank, dim=0).values
        room = best - threshold
        share = ((value - threshold) / room.where(room != 0, 1.0)).clamp(0.0, 1.0)
        return Calibration(
            value,
            null.mean(dim=0),
            threshold,
            share.where(room != 0, 0.0),
            (1 + alike).double() / (1 + self.permutations),
        )


def _best(measure: Measure[Any]) -> float:
    """The value of perfect agreement."""
    info = measure.info
    if info.of_itself is not None:
        return info.of_itself
    return info.high if info.kind == "similarity" else info.low


def calibrated(
    measure: str | Measure[Any],
    *,
    permutations: int = 199,
    alpha: float = 0.05,
    seed: int = 0,
    **options: Any,
) -> Calibrated:
    """A measure relative to chance, for `grid` and `compare`; `calibrate` gives p-values, too.

    A similarity in [0, 1], also of distances: 0 for a pair no more alike than one permutation of
    samples in 1/alpha, 1 for perfect agreement; see `calibrate` for the formula.

    Args:
        measure: Name, or a measure from `get_measure`.
        permutations: Number of permutations of each pair, at least 1/alpha - 1.
        alpha: Share of unrelated pairs above 0, in (0, 1).
        seed: Seed of the permutations; global random state is not touched.
        **options: Options of the measure, if it is given by name.

    Raises:
        ValueError: An argument out of range, or a measure without a value of perfect agreement.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import calibrated, grid
        >>> layers = [torch.randn(100, 20) for _ in range(3)]
        >>> grid(calibrated("cca"), layers).shape
        torch.Size([3, 3])

    References:
        Gröger et al., "Revisiting the Platonic representation hypothesis: an Aristotelian view",
        2026.
    """
    return Calibrated(
        as_measure(measure, options), permutations=permutations, alpha=alpha, seed=seed
    )
