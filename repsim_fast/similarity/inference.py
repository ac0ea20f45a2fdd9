"""How far to trust a value: standard errors by jackknife and bootstrap, permutation tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repsim_fast._core.randomness import seeded
from repsim_fast.similarity.base.measure import (
    Measure,
    as_measure,
    check_count,
    comparable,
    warn_of_caution,
)
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError, prepare
from repsim_fast.similarity.base.store import Spill
from repsim_fast.similarity.base.views import Number
from repsim_fast.similarity.grid import between, within

# Resamples of a pair that are compared in one batch.
TOGETHER = 32

# Draws of a resample, after which a measure counts as undefined for all of them.
DRAWS = 1000

# Values of permutations that differ by less than this, in units of rounding of the largest, are
# equal: another order of the same sums must not make a tie look less alike.
TIE_ULPS = 32


@dataclass(frozen=True, eq=False)
class Resampled:
    """Values with what resampling says of them; (L, M) float64 each.

    Attributes:
        value: From all samples.
        standard_error: Standard deviation that resampling gives the value.
        bias: Mean over resamples minus value, times (groups - 1) for the jackknife: estimate of
            how far the value is off on average because samples are few.
        resamples: (resamples, L, M), the values of each resample: from them follow the errors of
            functions of several values.
    """

    value: Tensor
    standard_error: Tensor
    bias: Tensor
    resamples: Tensor


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """A value against those of representations whose samples do not correspond.

    Attributes:
        value: Scalar float64.
        p_value: (1 + permutations at least as alike) / (1 + permutations), in (0, 1]. Permutations
            as alike up to rounding count.
        null: (permutations,) float64, values of the permutations.
    """

    value: Tensor
    p_value: float
    null: Tensor

    @property
    def chance(self) -> Tensor:
        """Mean of the permutations: the value that unrelated samples have, scalar float64."""
        return self.null.mean()


def jackknife(
    measure: str | Measure[Any],
    xs: Sequence[Tensor | Prepared],
    ys: Sequence[Tensor | Prepared] | None = None,
    *,
    groups: int = 20,
    clusters: Tensor | None = None,
    **options: Any,
) -> Resampled:
    """Standard errors of all pairs by leaving out one group of samples after the other.

    The standard error is √((g - 1)/g Σ (vᵢ - v̄)²) over the values without group i. Groups take
    every g-th sample, so that samples sorted by class stay balanced. Leaving out groups, not
    single samples, also suits measures that are not smooth (neighbours, ranks).

    Args:
        measure: Name, or a measure from `get_measure`.
        xs: Representations (n, p_i) of the same n samples.
        ys: Others of the same samples. Default: ``xs`` among themselves.
        groups: Number of groups g, 2 to n (or to the number of clusters).
        clusters: (n,) integers; samples of one cluster, such as the positions of one image, are
            left out together. Without it samples count as independent.
        **options: Options of the measure, if it is given by name.

    Returns:
        Values, standard errors and biases (len(xs), len(ys)).

    Raises:
        ValueError: As for `grid`; groups out of range; clusters do not fit.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import jackknife
        >>> x, y = torch.randn(100, 5), torch.randn(100, 6)
        >>> result = jackknife("cca", [x], [y], groups=10)
        >>> result.value.shape, result.standard_error.shape
        (torch.Size([1, 1]), torch.Size([1, 1]))

    References:
        Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 11.
    """
    chosen = as_measure(measure, options)
    left, right = representations(chosen, xs, ys)
    number = _cluster_numbers(clusters, left[0].n_samples)
    count = int(number.max()) + 1
    check_count("groups", groups, 2, count, ", the independent samples")
    group = number % groups
    value = _grid(chosen, _views(chosen, left, right), warn=True)
    kept = ((group != g).nonzero().flatten() for g in range(groups))
    views = (_views(chosen, left, right, rows) for rows in kept)
    values = _resampled(chosen, views, pair=right is not None and value.numel() == 1)
    bias = (groups - 1) * (values.mean(dim=0) - value)
    return Resampled(value, jackknife_error(values), bias, values)


def jackknife_error(
    left_out: Tensor,  # (G, ...)
) -> Tensor:
    """Standard errors (...) from the values without each of G groups: √((G-1)/G Σ (vᵢ - v̄)²)."""
    groups = len(left_out)
    spread = (left_out - left_out.mean(dim=0)).square().sum(dim=0) * (groups - 1) / groups
    return spread.sqrt()


def bootstrap(
    measure: str | Measure[Any],
    xs: Sequence[Tensor | Prepared],
    ys: Sequence[Tensor | Prepared] | None = None,
    *,
    resamples: int = 100,
    seed: int = 0,
    clusters: Tensor | None = None,
    **options: Any,
) -> Resampled:
    """Standard errors of all pairs from resamples with replacement.

    Resamples contain samples several times. Measures of neighbours and of canonical correlations
    take such copies for agreement and come out too high (see ``bias``); prefer `jackknife` there.
    A resample for which the measure is undefined, such as one sample many times, is drawn again.

    Args:
        measure: Name, or a measure from `get_measure`.
        xs: Representations (n, p_i) of the same n samples.
        ys: Others of the same samples. Default: ``xs`` among themselves.
        resamples: Number of resamples, at least 2.
        seed: Seed of the draws; global random state is not touched.
        clusters: (n,) integers; clusters are drawn instead of samples.
        **options: Options of the measure, if it is given by name.

    Returns:
        Values, standard errors and biases (len(xs), len(ys)).

    Raises:
        ValueError: As for `grid`; resamples out of range; clusters do not fit.
        UndefinedError: Of no resample in a row of 1,000 is the measure defined. A ValueError.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import bootstrap
        >>> x, y = torch.randn(100, 5), torch.randn(100, 6)
        >>> error = bootstrap("procrustes_similarity", [x], [y], resamples=20).standard_error

    References:
        Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 6.
    """
    chosen = as_measure(measure, options)
    left, right = representations(chosen, xs, ys)
    check_count("resamples", resamples, 2, 2**31)
    number = _cluster_numbers(clusters, left[0].n_samples)
    count = int(number.max()) + 1
    members = (
        [(number == c).nonzero().flatten() for c in range(count)] if clusters is not None else []
    )
    generator = seeded(seed)

    def draw() -> _Views:
        left_to_draw = DRAWS
        while True:
            drawn = torch.randint(count, (count,), generator=generator)
            rows = torch.cat([members[c] for c in drawn.tolist()]) if members else drawn
            try:
                return _views(chosen, left, right, rows)
            except UndefinedError:
                left_to_draw -= 1
                if left_to_draw == 0:
                    raise

    value = _grid(chosen, _views(chosen, left, right), warn=True)
    draws = (draw() for _ in range(resamples))
    values = _resampled(chosen, draws, pair=right is not None and value.numel() == 1)
    return Resampled(value, values.std(dim=0), values.mean(dim=0) - value, values)


def permutation_test(
    measure: str | Measure[Any],
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    permutations: int = 999,
    seed: int = 0,
    **options: Any,
) -> PermutationTest:
    """Tests whether two representations are more alike than if samples did not correspond.

    The samples of y are permuted at random. Nothing is factorised again, since permuting samples
    permutes the rows of every factorisation, and permutations are compared in batches. Samples must
    be exchangeable: for positions of images permute images, not positions.

    Args:
        measure: Name, or a measure from `get_measure`.
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        permutations: Number of permutations, at least 1.
        seed: Seed of the permutations; global random state is not touched.
        **options: Options of the measure, if it is given by name.

    Returns:
        Value, p-value (one-sided, small for representations more alike than chance) and the values
        of all permutations.

    Raises:
        ValueError: As for the measure; permutations out of range; a measure that does not see
            which samples correspond.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import permutation_test
        >>> x = torch.randn(50, 5)
        >>> test = permutation_test("cka", x, x + torch.randn(50, 5), permutations=99)
        >>> test.p_value
        0.01

    References:
        Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    chosen = as_measure(measure, options)
    check_count("permutations", permutations, 1, 2**31)
    first, second = comparable([prepare(x, name="x"), prepare(y, name="y")], chosen.min_samples)
    ours, theirs = [chosen.view(first)], chosen.view(second)
    value = between(chosen, ours, [theirs])[0, 0]
    orders = permuted(first.n_samples, permutations, seed)
    values = torch.cat(list(null_values(chosen, ours, [theirs], [(0, 0)], orders))).flatten()
    alike = as_alike(chosen, value, values, first.features.dtype)
    return PermutationTest(value, (1 + int(alike.sum())) / (1 + permutations), values)


def permuted(n: int, permutations: int, seed: int) -> Iterator[Tensor]:
    """Random orders of n samples."""
    generator = seeded(seed)
    return (torch.randperm(n, generator=generator) for _ in range(permutations))


def null_values(
    measure: Measure[Any],
    left: Sequence[Any],
    right: Sequence[Any],
    pairs: Pairs,
    orders: Iterator[Tensor],
    *,
    memory: int | None = None,
) -> Iterator[Tensor]:
    """Values (some, len(pairs)) float64 of pairs of views whose right samples come in other orders.

    Nothing is factorised again: permuting samples permutes the rows of every factorisation. Of the
    permuted views ``memory`` bytes stay in memory, all if None.
    """
    if any(isinstance(view, Number) for view in right):
        raise ValueError(
            f"measure: {measure.info.name} does not depend on which samples correspond"
        )
    if not all(hasattr(view, "take") for view in right):
        raise ValueError(
            f"measure: the views of {measure.info.name} have no take(rows), which permutes samples"
        )
    while some := list(islice(orders, max(1, TOGETHER // len(pairs)))):
        spill = Spill(memory)
        moved = [spill.keep(view.take(order)) for order in some for view in right]
        shifted = [(i, j + k * len(right)) for k in range(len(some)) for i, j in pairs]
        yield measure.pairs(left, moved, shifted).double().reshape(len(some), len(pairs))
        spill.close()


def as_alike(measure: Measure[Any], value: Tensor, null: Tensor, dtype: torch.dtype) -> Tensor:
    """Which values of a null distribution (K, ...) are at least as alike as the value (...)."""
    ahead = null - value if measure.info.kind == "similarity" else value - null
    largest = torch.maximum(value.abs(), null.abs().amax(dim=0))
    return ahead >= -TIE_ULPS * torch.finfo(dtype).eps * largest


def representations(
    measure: Measure[Any],
    xs: Sequence[Tensor | Prepared],
    ys: Sequence[Tensor | Prepared] | None,
) -> tuple[list[Prepared], list[Prepared] | None]:
    """Both sides prepared, checked and in one dtype; None for ``xs`` among themselves."""
    left = [prepare(x, name=f"xs[{i}]") for i, x in enumerate(xs)]
    right = [] if ys is None else [prepare(y, name=f"ys[{i}]") for i, y in enumerate(ys)]
    if not left or (ys is not None and not right):
        raise ValueError(f"{'xs' if not left else 'ys'}: expected at least one representation")
    everything = comparable([*left, *right], measure.min_samples)
    return everything[: len(left)], None if ys is None else everything[len(left) :]


class _Views(NamedTuple):
    """Of all representations, from as many samples."""

    samples: int
    left: list[Any]
    right: list[Any] | None


def _views(
    measure: Measure[Any],
    left: list[Prepared],
    right: list[Prepared] | None,
    rows: Tensor | None = None,
) -> _Views:
    """Views of all samples, or of those of a resample."""

    def of(several: list[Prepared]) -> list[Any]:
        return [measure.view(x if rows is None else x.take(rows)) for x in several]

    samples = left[0].n_samples if rows is None else len(rows)
    return _Views(samples, of(left), None if right is None else of(right))


def _grid(measure: Measure[Any], views: _Views, *, warn: bool = False) -> Tensor:
    if warn:
        theirs = views.left if views.right is None else views.right
        warn_of_caution(measure, views.left, theirs, stacklevel=4)
    if views.right is None:
        return within(measure, views.left)
    return between(measure, views.left, views.right)


def _resampled(measure: Measure[Any], resamples: Iterator[_Views], *, pair: bool) -> Tensor:
    """Grids (R, L, M) of resamples; those of a single pair are computed many at a time."""
    if not pair:
        return torch.stack([_grid(measure, views) for views in resamples])
    values = []
    # Groups and clusters differ in size, and only resamples of one size fit into a batch.
    for _, run in groupby(resamples, key=lambda views: views.samples):
        while some := list(islice(run, TOGETHER)):
            ours = [views.left[0] for views in some]
            theirs = [views.right[0] for views in some if views.right is not None]
            values.append(measure.pairs(ours, theirs, [(k, k) for k in range(len(some))]))
    return torch.cat(values).double().reshape(-1, 1, 1)


def _cluster_numbers(clusters: Tensor | None, n: int) -> Tensor:
    """Number of the cluster of every sample, from 0."""
    if clusters is None:
        return torch.arange(n)
    if not isinstance(clusters, Tensor):
        raise TypeError(f"clusters: expected a torch.Tensor, got {type(clusters).__name__}")
    if clusters.shape != (n,) or clusters.is_floating_point():
        raise ValueError(
            f"clusters: expected {n} integers, one a sample, got {clusters.dtype} of shape "
            f"{tuple(clusters.shape)}"
        )
    numbers: Tensor = torch.unique(clusters.cpu(), return_inverse=True)[1]
    return numbers
