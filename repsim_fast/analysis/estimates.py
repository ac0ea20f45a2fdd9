"""A number and its standard error: from replicates, from counts, over networks of other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import erfc, inf, nan, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Estimate",
    "Interval",
    "difference",
    "jackknife",
    "jackknife_bias",
    "jackknife_error",
    "mean_over_seeds",
    "one_sided_p",
    "over_seeds",
    "permutation_p",
    "ratio",
    "share",
    "spread_over_seeds",
    "student_interval",
    "total_error",
    "wilson_interval",
]

Array = npt.NDArray[np.float64]

# Rounding must not make an arrangement of the same values miss the observed difference; as a share
# of the largest of them.
_TIE = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Attributes:
        value: The number; NaN where it is not defined.
        standard_error: Of the value; NaN where it is not known.
        degrees: Of freedom of the standard error, which is uncertain itself: networks or groups of
            samples less one; infinite where it follows from a formula.
        left_out: (G,) the number without each of G groups of samples, where the error is their
            jackknife's; with them numbers of the same samples are subtracted exactly.

    Example:
        >>> print(Estimate(0.5, 0.01))
        0.500 ± 0.010
    """

    value: float
    standard_error: float
    degrees: float = field(default=inf, compare=False)
    left_out: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.standard_error:.3f}"


class Interval(NamedTuple):
    """Limits between which a quantity lies with the confidence that was asked for."""

    low: Array
    high: Array


def student_interval(
    value: npt.ArrayLike, standard_error: npt.ArrayLike, groups: int, level: float = 0.95
) -> Interval:
    """value ± t √(jackknife variance), t Student's quantile for G - 1 degrees of freedom.

    With few groups a standard error is itself uncertain: ±1.96 of them covers 80 to 88 % with four
    groups in place of 95.

    Args:
        value: (...) estimates.
        standard_error: (...) their jackknife standard errors.
        groups: Groups that were left out in turn.
        level: Confidence, in (0, 1).

    Returns:
        Lower and upper limits (...), NaN where there is no standard error or are no two groups.

    Raises:
        ValueError: ``level`` outside of (0, 1).

    Example:
        >>> low, high = student_interval(0.5, 0.01, groups=10)
        >>> print(f"{low:.4f} {high:.4f}")
        0.4774 0.5226

    References:
        Tukey, "Bias and confidence in not quite large samples", 1958.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number in (0, 1), got {level!r}")
    from scipy.special import stdtrit  # Student's quantile; takes a while

    middle = np.asarray(value, np.float64)
    quantile = float(stdtrit(groups - 1, (1 + level) / 2)) if groups > 1 else nan
    half = quantile * np.asarray(standard_error, np.float64)
    return Interval(middle - half, middle + half)


def jackknife_error(left_out: npt.ArrayLike) -> Array:
    """Standard errors √((G-1)/G Σ (vᵢ - v̄)²) from the values without each of G groups.

    Args:
        left_out: (G, ...) values with one group of samples left out in turn.

    Returns:
        (...) float64; NaN with fewer than two groups.

    Example:
        >>> jackknife_error([[1.0], [2.0], [3.0]]).round(3)
        array([1.155])

    References:
        Efron & Tibshirani, "An introduction to the bootstrap", 1993, chapter 11.
    """
    values = np.asarray(left_out, dtype=np.float64)
    groups = len(values)
    if groups < 2:
        return np.full(values.shape[1:], nan)
    spread = np.square(values - values.mean(0)).sum(0) * (groups - 1) / groups
    return np.asarray(np.sqrt(spread))


def jackknife_bias(value: npt.ArrayLike, left_out: npt.ArrayLike) -> Array:
    """How far values are off on average because samples are few: (G-1) (mean of vᵢ - v).

    Exact for a bias that falls as 1/n.

    Args:
        value: (...) from all samples.
        left_out: (G, ...) values with one group of samples left out in turn.

    Returns:
        (...) float64; NaN with fewer than two groups.

    Example:
        >>> print(f"{jackknife_bias(2.0, [2.1, 2.2, 2.3]):.1f}")
        0.4

    References:
        Quenouille, "Notes on bias in estimation", 1956.
    """
    values, whole = np.asarray(left_out, dtype=np.float64), np.asarray(value, dtype=np.float64)
    groups = len(values)
    if groups < 2:
        return np.full(whole.shape, nan)
    return np.asarray((groups - 1) * (values.mean(0) - whole))


def jackknife(value: float, left_out: Sequence[float] | Array) -> Estimate:
    """A number with its jackknife standard error, see :func:`jackknife_error`.

    Args:
        value: From all samples.
        left_out: (G,) the same number with one group of samples left out in turn.

    Returns:
        The value and its error, NaN with fewer than two groups.

    Example:
        >>> print(jackknife(2.0, [1.9, 2.0, 2.1]))
        2.000 ± 0.115
    """
    groups = tuple(float(v) for v in left_out)
    return Estimate(float(value), float(jackknife_error(groups)), len(groups) - 1, groups)


def share(right: float, n: int) -> Estimate:
    """A share of n images, such as an accuracy, with a binomial standard error √(q (1-q) / n).

    q = (n p + 1) / (n + 2) is Laplace's estimate of the share p: none of n images is not known
    without error.

    Args:
        right: Share p in [0, 1].
        n: Images.

    Raises:
        ValueError: No share, or no images.

    Example:
        >>> print(share(0.9, 100))
        0.900 ± 0.031
    """
    _check_share(right, n)
    likely = (right * n + 1) / (n + 2)
    return Estimate(right, sqrt(likely * (1 - likely) / n))


def wilson_interval(right: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share of n images; z = 1.96 for 95 %.

    Args:
        right: Share in [0, 1].
        n: Images.
        z: Quantile of the standard normal distribution.

    Raises:
        ValueError: No share, or no images.

    Example:
        >>> low, high = wilson_interval(0.9, 100)
        >>> print(f"{low:.3f} {high:.3f}")
        0.826 0.945
    """
    _check_share(right, n)
    z2 = z * z
    centre, scale = right + z2 / (2 * n), 1 + z2 / n
    half = z * sqrt(right * (1 - right) / n + z2 / (4 * n * n))
    # Rounding can take a bound just outside where the share is 0 or 1.
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over networks trained with different seeds, and the mean's standard error s / √n.

    Args:
        values: (n,) one number a network.

    Returns:
        The mean; its error is NaN with one network.

    Raises:
        ValueError: No values.

    Example:
        >>> print(over_seeds([1.0, 2.0, 3.0]))
        2.000 ± 0.577
    """
    known = _known("values", values)
    error = known.std(ddof=1) / sqrt(len(known)) if len(known) > 1 else nan
    return Estimate(float(known.mean()), float(error), max(len(known) - 1, 0))


def mean_over_seeds(networks: Sequence[Estimate]) -> Estimate:
    """Mean over networks of numbers that err by the samples, too, which the networks share.

    Other seeds and other samples would both change it: the error is √(s² / n + e²), s the standard
    deviation over networks (see :func:`over_seeds`) and e what the samples do to the mean. Where
    all numbers have their values without each group, e is the jackknife error of the mean;
    otherwise the mean error of the numbers, as if the samples moved all networks alike, which is
    the most that e can be. Errors that are not known (NaN) are left out.

    Returns:
        The mean; of one network its own number.

    Raises:
        ValueError: No networks.

    Example:
        >>> print(mean_over_seeds([Estimate(0.4, 0.03), Estimate(0.6, 0.05)]))
        0.500 ± 0.108
    """
    if len(networks) == 1:
        return networks[0]
    seeds = over_seeds([e.value for e in networks])
    return total_error(seeds.value, [seeds, _of_samples(networks)])


def _of_samples(networks: Sequence[Estimate]) -> Estimate:
    """Mean of numbers of the same samples, its error that of the samples alone."""
    groups = {len(e.left_out) for e in networks}
    mean = float(np.mean([e.value for e in networks]))
    if len(groups) == 1 and groups != {0}:
        return jackknife(mean, np.mean([e.left_out for e in networks], axis=0))
    known = [e for e in networks if not np.isnan(e.standard_error)]
    if not known:
        return Estimate(mean, nan)
    return Estimate(mean, float(np.mean([e.standard_error for e in known])), known[0].degrees)


def spread_over_seeds(values: Sequence[float]) -> Estimate:
    """Standard deviation s over networks of different seeds, and its error s / √(2 (n-1)).

    The error is that of normal values.

    Args:
        values: (n,) one number a network.

    Returns:
        NaN with its error for fewer than two networks.

    References:
        Ahn & Fessler, "Standard errors of mean, variance, and standard deviation estimators",
        2003.
    """
    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2:
        return Estimate(nan, nan)
    deviation = float(known.std(ddof=1))
    return Estimate(deviation, deviation / sqrt(2 * (len(known) - 1)))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, with the jackknife error of the difference or √(se_a² + se_b²).

    The jackknife's is taken where both have their values without each of equally many groups: it
    is right for numbers of the same samples, whose errors cancel in part, and of independent ones.
    The other is for independent numbers.

    Example:
        >>> print(difference(jackknife(2.0, [1.9, 2.0, 2.1]), jackknife(1.0, [0.9, 1.0, 1.1])))
        1.000 ± 0.000
    """
    if a.left_out and len(a.left_out) == len(b.left_out):
        return jackknife(a.value - b.value, np.subtract(a.left_out, b.left_out))
    if np.isnan(b.standard_error):
        return Estimate(a.value - b.value, nan)
    return total_error(a.value - b.value, [a, b])


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """a / b of independent numbers, b positive, with its error to first order.

    Returns:
        a / b with √(se_a² + (a / b)² se_b²) / b; infinity, its error unknown, where b is not
        positive.
    """
    if not b.value > 0:
        return Estimate(inf, nan)
    value = a.value / b.value
    if np.isnan(b.standard_error):
        return Estimate(value, nan)
    return total_error(value, [a, b], [1 / b.value, value / b.value])


def total_error(
    value: float, errors: Sequence[Estimate], weights: Sequence[float] | None = None
) -> Estimate:
    """A number that errs by several things independently, √Σ (w_i se_i)².

    Args:
        value: The number.
        errors: Whose errors are added; an unknown one (NaN) adds nothing, but the first, which
            leaves the sum unknown.
        weights: How much the number moves with each of them, 1 by default.

    Returns:
        The value, with degrees of freedom as Welch and Satterthwaite have them.

    Example:
        >>> found = total_error(1.0, [Estimate(1.0, 0.3, 2), Estimate(1.0, 0.4)])
        >>> print(found, round(found.degrees, 1))
        1.000 ± 0.500 15.4
    """
    weights = [1.0] * len(errors) if weights is None else weights
    variances = [(w * e.standard_error) ** 2 for w, e in zip(weights, errors, strict=True)]
    if np.isnan(variances[0]):
        return Estimate(value, nan)
    known = [(v, e.degrees) for v, e in zip(variances, errors, strict=True) if not np.isnan(v)]
    total = sum(v for v, _ in known)
    spent = sum(v * v / d for v, d in known if v)
    return Estimate(value, sqrt(total), total * total / spent if spent else inf)


def permutation_p(low: Sequence[float], high: Sequence[float]) -> float:
    """Exact one-sided p value of mean(high) > mean(low) if the values are exchangeable.

    p is the share of all arrangements of the values in two groups of these sizes whose difference
    of means is at least the observed one; with three and three values a multiple of 1/20. For
    whole representations see ``repsim_fast.similarity.permutation_test``.

    Args:
        low, high: One number a network.

    Returns:
        In (0, 1]; NaN where a value is not finite.

    Raises:
        ValueError: A group without values.

    Example:
        >>> permutation_p([1, 2, 3], [4, 5, 6])
        0.05
    """
    values = np.concatenate([_known("low", low), _known("high", high)])
    if not np.isfinite(values).all():
        return nan
    observed = np.mean(high) - np.mean(low)
    tie = _TIE * float(np.abs(values).max())
    count = least = 0
    for chosen in combinations(range(len(values)), len(high)):
        mask = np.isin(np.arange(len(values)), chosen)
        count += 1
        least += bool(values[mask].mean() - values[~mask].mean() >= observed - tie)
    return least / count


def one_sided_p(difference: Estimate) -> float:
    """P value of a number above 0, the upper tail of t = value / se.

    Student's t where the error has degrees of freedom; normal where they are infinite,
    erfc(t / √2) / 2.

    Returns:
        In [0, 1]; NaN where the error is unknown or 0.

    Example:
        >>> round(one_sided_p(Estimate(1.645, 1.0)), 3)
        0.05
        >>> round(one_sided_p(Estimate(1.645, 1.0, degrees=3)), 3)
        0.099
    """
    if not difference.standard_error > 0:
        return nan
    t = difference.value / difference.standard_error
    if difference.degrees == inf:
        return 0.5 * erfc(t / sqrt(2))
    from scipy.special import stdtr  # Student's distribution; takes a while

    return float(stdtr(difference.degrees, -t))


def _check_share(right: float, n: int) -> None:
    if not 0 <= right <= 1:
        raise ValueError(f"right: expected a share in [0, 1], got {right}")
    if n < 1:
        raise ValueError(f"n: expected at least one image, got {n}")


def _known(name: str, values: Sequence[float]) -> Array:
    known = np.asarray(values, dtype=np.float64)
    if known.ndim != 1 or not len(known):
        raise ValueError(f"{name}: expected a number for each network, got shape {known.shape}")
    return known
