"""CKA of many representations at once, accumulated over minibatches, with standard errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast._core.processes import Processes
from repsim_fast.ops import MIN_SAMPLES, centered_gram
from repsim_fast.similarity.base.estimator import CENTERING, ESTIMATORS, Estimator, hsic_scale
from repsim_fast.similarity.base.factor import sample_gram

# Groups of batches kept for the jackknife: beyond these, neighbouring groups are joined, so that
# memory stays bounded. With g groups the standard error itself is uncertain by about 1/√(2g), which
# is 0.18 for the fewest that many representations leave.
MAX_GROUPS, FEWEST_GROUPS = 64, 16
GROUPS_BYTES = 256 << 20

# Cells of a matrix that are worked on at a time: some such blocks of float64 fit in a processor's
# last cache, and more calls on smaller ones take longer than that cache does.
_BLOCK = 1 << 17

# Mean square entry of a Gram from which on float32 products have all their digits: what they lose
# below the smallest normal number is less than what rounding loses.
LEAST_SQUARE = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps


def most_groups(size: int) -> int:
    """Groups of batches that are kept of so many representations, float64 (size, size) each."""
    return min(MAX_GROUPS, max(FEWEST_GROUPS, GROUPS_BYTES // (8 * size * size)))


def least_entry(dtype: torch.dtype) -> float:
    """Root mean square entry of a Gram below which its dtype rounds it, or float64 its square."""
    return max(float(torch.finfo(dtype).tiny), math.sqrt(torch.finfo(torch.float64).tiny))


@dataclass(frozen=True)
class CKAEstimate:
    """CKA of every pair of representations.

    Attributes:
        value: (L, L) float64; NaN where a representation is constant.
        standard_error: (L, L) float64, jackknife over batches; NaN with a single batch.
        n_samples: Samples seen, all batches together.
        n_batches: Batches seen.
        hsic: (G, L, L), sums Σ n_b HSIC^b over each group of batches; all else follows. float64, or
            float32 where each group is one batch of float32 products, which have no more digits.
        group_samples: Samples of each of these groups.
    """

    value: Tensor
    standard_error: Tensor
    n_samples: int
    n_batches: int
    hsic: Tensor
    group_samples: tuple[int, ...]


class MinibatchCKA:
    """Minibatch CKA between all pairs of L representations (layers of any number of models).

    Each batch b of n_b samples gives one HSIC for every pair. Batches are averaged first, weighted
    by n_b, and the ratio is taken once at the end:

        CKA_ij = Σ_b n_b HSIC_ij^b / √(Σ_b n_b HSIC_ii^b · Σ_b n_b HSIC_jj^b)

    The weight is the number of samples because a batch's HSIC₁ is a U-statistic whose variance
    falls as 1/n_b: a short last batch counts for what it knows, not as much as a full one. With a
    single batch of all samples the result is the full (debiased) CKA. The unbiased estimator does
    not depend on the batch size in expectation; the biased one does.

    The standard error is the jackknife over batches (leave one out; over at most 64 groups of
    neighbouring batches of equal count when there are more). The groups of more than 724
    representations are fewer, 16 at least, so that they take 256 MiB: 32 of 1,024 (see
    `most_groups`).

    Args:
        estimator: ``"unbiased"`` (HSIC₁, each batch at least 4 samples) or ``"biased"``.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import centered_gram
        >>> from repsim_fast.similarity import MinibatchCKA
        >>> accumulated = MinibatchCKA()
        >>> for _ in range(4):
        ...     x = torch.randn(32, 10)
        ...     grams = [centered_gram(f, packed=True) for f in (x, x[:, :5], x.relu())]
        ...     accumulated.update(torch.stack(grams), n=32)
        >>> accumulated.compute().value.shape
        torch.Size([3, 3])

    References:
        Nguyen et al., "Do wide and deep networks learn the same things?", 2021, eq. 4.
        Cianfarani et al., "Understanding robust learning through the lens of representation
        similarities", 2022.
    """

    def __init__(self, *, estimator: Estimator = "unbiased") -> None:
        check_choice("estimator", estimator, ESTIMATORS)
        self.estimator: Estimator = estimator
        self.n_samples = 0
        self.n_batches = 0
        # Weighted sums Σ n_b HSIC^b of groups of `_group_size` batches of successive numbers, in
        # ascending order, by the number of the group; some may be partial. Those of several batches
        # are float64, as sums need it; all have one dtype.
        self._groups: dict[int, Tensor] = {}
        self._group_samples: dict[int, int] = {}
        # (G, L, L) memory of which the groups are the first matrices, so that `compute` need not
        # copy them; None where they lie elsewhere. What it gave away is copied before it changes.
        self._room: Tensor | None = None
        self._given = False
        self._group_size = 1
        self._next = 0  # number of the next batch

    @classmethod
    def from_groups(
        cls,
        hsic: Tensor,  # (G, L, L) float32 or float64
        group_samples: Sequence[int],
        *,
        n_batches: int,
        estimator: Estimator,
    ) -> MinibatchCKA:
        """What had these groups of batches, as `compute` gives them; to be merged with others."""
        state = cls(estimator=estimator)
        state._groups, state._given = dict(enumerate(hsic)), True
        state._group_samples = dict(enumerate(group_samples))
        state._group_size = max(1, round(n_batches / len(group_samples)))
        state._next = len(group_samples) * state._group_size
        state.n_samples, state.n_batches = sum(group_samples), n_batches
        return state

    def update(
        self,
        grams: Tensor,  # (L, m)
        *,
        n: int,
    ) -> None:
        """Adds one batch.

        Args:
            grams: Packed centred Grams, one row a representation, from `ops.centered_gram` with
                ``packed=True`` and the centring of the estimator (``"unbiased"`` or ``"double"``).
            n: Samples of the batch.

        Raises:
            ValueError: Shape does not fit n or earlier batches, too few samples, NaN or Inf, or a
                Gram so small that its dtype rounds it (features below 1e-19 in float32). One
                that was rounded to zeros is that of a constant representation.
        """
        hsic = self.batch_hsic(grams, n=n)
        mean_square = hsic.diagonal() / (hsic_scale(n, self.estimator) * grams.shape[1])
        _check_entries(grams.detach(), mean_square.detach().sqrt())
        self.add(hsic, n=n)

    def batch_hsic(
        self,
        grams: Tensor,  # (L, m)
        *,
        n: int,
    ) -> Tensor:
        """HSIC (L, L) float64 of one batch, which `add` adds; `update` is both.

        Arguments are those of `update`, and so are the errors but for those of single entries:
        a Gram that is not finite has no finite HSIC with itself, and one too small about 0.
        """
        return self.batch_product(grams, n=n).double() * hsic_scale(n, self.estimator)

    def batch_product(
        self,
        grams: Tensor,  # (L, m)
        *,
        n: int,
        out: Tensor | None = None,  # (L, L) float32
    ) -> Tensor:
        """Inner products (L, L) of the Grams of one batch, float32 or float64: `batch_hsic` in
        units of `hsic_scale`, in ``out`` or a tensor of its own."""
        least = max(2, MIN_SAMPLES[CENTERING[self.estimator]])
        if n < least:
            raise ValueError(
                f"n: the {self.estimator} estimator needs at least {least} samples, got {n}"
            )
        size = n * (n - 1) // 2 if self.estimator == "unbiased" else n * (n + 1) // 2
        if grams.dim() != 2 or grams.shape[1] != size:
            raise ValueError(
                f"grams: expected packed Grams (L, {size}) of {n} samples, "
                f"got shape {tuple(grams.shape)}"
            )
        if self._size not in (None, grams.shape[0]):
            raise ValueError(
                f"grams: expected {self._size} representations as before, got {grams.shape[0]}"
            )
        product = centered_gram(grams, centering="none", out=out)
        if product.dtype == torch.float32 and not _exact(product.detach().diagonal(), grams):
            product = sample_gram(grams)
        return product

    def add(
        self,
        hsic: Tensor,  # (L, L)
        *,
        n: int,
        number: int | None = None,
        scale: float = 1.0,
    ) -> None:
        """Adds one batch of n samples by its HSIC, as `batch_hsic` returns it.

        Args:
            hsic: The batch's.
            n: Its samples.
            number: Its number among all batches, later than those before; batches of neighbouring
                numbers are one group. Default: the next one.
            scale: Unit of ``hsic``, which then may be float32.

        Raises:
            ValueError: Not a square matrix, or of another size than earlier batches, or a number
                that is not later.
        """
        size = hsic.shape[-1] if self._size is None else self._size
        if hsic.shape != (size, size):
            raise ValueError(
                f"hsic: expected a matrix ({size}, {size}), got shape {tuple(hsic.shape)}"
            )
        number = self._next if number is None else number
        if number < self._next:
            raise ValueError(f"number: expected at least {self._next}, got {number}")
        if self._given:
            self._take_copies()
        while number // self._group_size >= most_groups(size):
            self._join_pairs()
        group = number // self._group_size
        if group in self._groups:
            self._widen()
            self._groups[group].add_(hsic, alpha=scale * n)
            self._group_samples[group] += n
        else:
            if hsic.dtype == torch.float64 or self._group_size > 1:
                self._widen()
            self._groups[group] = self._place_for(hsic).copy_(hsic).mul_(scale * n)
            self._group_samples[group] = n
        self._next = number + 1
        self.n_samples += n
        self.n_batches += 1

    def _place_for(
        self,
        hsic: Tensor,  # (L, L)
    ) -> Tensor:
        """Memory (L, L) for the next group."""
        size = len(hsic)
        if not self._groups:
            one_batch = hsic.dtype == torch.float32 and self._group_size == 1
            dtype = torch.float32 if one_batch else torch.float64
            if hsic.is_cpu:
                # What is not written to takes no memory. NumPy asks for huge pages, of which the
                # system clears a gigabyte several times faster.
                room = np.empty((most_groups(size), size, size), str(dtype).removeprefix("torch."))
                self._room = torch.from_numpy(room)
        else:
            dtype = next(iter(self._groups.values())).dtype
        if self._room is None:
            return torch.empty_like(hsic, dtype=dtype)
        return self._room[len(self._groups)]

    def _widen(self) -> None:
        """Make the groups float64."""
        if any(group.dtype != torch.float64 for group in self._groups.values()):
            self._groups, self._room = _wide(self._groups), None

    @property
    def _size(self) -> int | None:
        """Number of representations; None before the first batch."""
        return next((len(group) for group in self._groups.values()), None)

    def merge(self, other: MinibatchCKA) -> MinibatchCKA:
        """Adds what another accumulator has seen (other samples, the same representations).

        Groups of batches stay of about one size, which the jackknife supposes: neighbours of the
        smaller ones are joined.

        Returns:
            This accumulator; the other one is as before.

        Raises:
            ValueError: Different estimators or numbers of representations.
        """
        if other.estimator != self.estimator:
            raise ValueError(
                f"other: expected estimator {self.estimator!r}, got {other.estimator!r}"
            )
        if self._groups and other._groups and self._size != other._size:
            raise ValueError(f"other: expected {self._size} representations, got {other._size}")
        other = other._copy()
        for state in (self, other):
            state._widen()
        for small, large in ((self, other), (other, self)):
            while len(small._groups) > 1 and _typical(small) * 1.5 <= _typical(large):
                small._join_pairs()
        self._groups, self._room = _numbered(self._groups, other._groups), None
        self._group_samples = _numbered(self._group_samples, other._group_samples)
        self._group_size = max(self._group_size, other._group_size)
        while len(self._groups) > most_groups(self._size or 1):
            self._join_pairs()
        self._next = len(self._groups) * self._group_size
        self.n_samples += other.n_samples
        self.n_batches += other.n_batches
        return self

    def _copy(self) -> MinibatchCKA:
        copy = MinibatchCKA(estimator=self.estimator)
        copy.__dict__.update(self.__dict__)
        copy._take_copies()
        copy._group_samples = dict(self._group_samples)
        return copy

    def _take_copies(self) -> None:
        self._groups = {number: group.clone() for number, group in self._groups.items()}
        self._room, self._given = None, False

    def pool(self, rows: Sequence[int], processes: Processes) -> None:
        """Makes this what one accumulator would be that had been given the batches of all
        processes, which must have had different numbers.

        Args:
            rows: Which representations this process's groups have them in, in one order for all;
                whatever they are where it has seen no batch.
            processes: Who takes part, all of whom call this.
        """
        found = processes.gather((self._group_size, self._group_samples, self._next))
        while self._group_size < max(size for size, _, _ in found):
            self._join_pairs()
        samples: dict[int, int] = {}
        for size, some, _ in found:
            for number, n in some.items():
                group = number * size // self._group_size
                samples[group] = samples.get(group, 0) + n
        chosen = torch.tensor(rows, dtype=torch.int64)
        for group in sorted(samples):
            own = self._groups.get(group)
            hsic = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=processes.device)
            if own is not None:
                hsic += own.to(hsic.device)[chosen[:, None], chosen[None, :]]
            self._groups[group] = processes.sum(hsic).cpu()
        self._groups, self._room = {group: self._groups[group] for group in sorted(samples)}, None
        self._group_samples = {group: samples[group] for group in sorted(samples)}
        self._next = max(following for _, _, following in found)
        self.n_samples = sum(samples.values())
        self.n_batches = sum(processes.gather(self.n_batches))

    def kept(self) -> dict[str, Tensor]:
        """All that batches have added up to, for `go_on` of an accumulator like this one.

        Raises:
            RuntimeError: No batch has been added.
        """
        if not self._groups:
            raise RuntimeError("MinibatchCKA: no batch has been added; call update() first")
        return {
            "hsic": torch.stack(list(self._groups.values())).cpu(),
            "groups": torch.tensor([list(group) for group in self._group_samples.items()]),
            "counts": torch.tensor([self._group_size, self._next, self.n_batches]),
        }

    def go_on(self, kept: Mapping[str, Tensor]) -> None:
        """Be what had added up to this; of as many representations as there are now.

        Raises:
            ValueError: It is nothing that `kept` gave, or of other representations.
        """
        hsic, groups, counts = (kept[name] for name in ("hsic", "groups", "counts"))
        size, number = self._size, len(groups)
        if (
            hsic.dtype not in (torch.float32, torch.float64)
            or (groups.dtype, counts.dtype) != (torch.int64, torch.int64)
            or (hsic.shape, groups.shape, counts.shape) != ((number, size, size), (number, 2), (3,))
            or number == 0
            or min(int(groups.min()), int(counts.min()) - 1) < 0
        ):
            raise ValueError(
                f"hsic: expected sums of {size} representations, got shape {tuple(hsic.shape)}"
            )
        device = next(iter(self._groups.values())).device
        numbers, samples = groups.unbind(1)
        self._groups, self._room = dict(zip(numbers.tolist(), hsic.to(device), strict=True)), None
        self._group_samples = dict(zip(numbers.tolist(), samples.tolist(), strict=True))
        self._group_size, self._next, self.n_batches = counts.tolist()
        self.n_samples = sum(self._group_samples.values())

    def _join_pairs(self) -> None:
        self._groups, self._room = _sums_of_pairs(_wide(self._groups)), None
        self._group_samples = _sums_of_pairs(self._group_samples)
        self._group_size *= 2

    def hsic(self) -> Tensor:
        """Weighted mean HSIC (L, L) float64 over all batches.

        Raises:
            RuntimeError: No batch has been added.
        """
        return self._sum() / self.n_samples

    def _sum(self) -> Tensor:
        """Σ n_b HSIC^b (L, L) of all batches."""
        if not self._groups:
            raise RuntimeError("MinibatchCKA: no batch has been added; call update() first")
        return _added(self._groups.values())

    def compute(self) -> CKAEstimate:
        """CKA and its standard error for every pair.

        Raises:
            RuntimeError: No batch has been added.
        """
        total, groups = self._sum(), list(self._groups.values())
        value, error = _jackknifed(total, groups)
        if len(groups) < 2:
            error.fill_(math.nan)
        if self._room is None:
            hsic = torch.stack(groups)
        else:
            hsic, self._given = self._room[: len(groups)], True
        return CKAEstimate(
            value,
            error,
            self.n_samples,
            self.n_batches,
            hsic,
            tuple(self._group_samples.values()),
        )


def _jackknifed(
    total: Tensor,  # (L, L) float64, symmetric
    groups: Sequence[Tensor],  # G of (L, L), symmetric
) -> tuple[Tensor, Tensor]:
    """CKA (L, L) from the sum of all groups, and its standard error."""
    own, count, size = total.diagonal(), len(groups), len(total)
    left = [_near_one(own - group.diagonal()) for group in groups]
    value, error = torch.empty_like(total), torch.empty_like(total)
    step = max(1, _BLOCK // max(1, size))
    memory = total.new_empty(4, step * size)
    # A block of rows of the lower triangle after the other, in memory that stays in the cache.
    for start in range(0, size, step):
        rows, columns = slice(start, min(size, start + step)), slice(0, min(size, start + step))
        cells = _ratio(total[rows, columns], own[rows], own[columns])
        deviation, scale, mean, squares = memory[:, : cells.numel()].view(4, *cells.shape)
        mean.zero_(), squares.zero_()
        for group, (unit, rest) in zip(groups, left, strict=True):
            # Deviations from the estimate, not the values themselves: their squares would cancel.
            torch.sub(total[rows, columns], group[rows, columns], out=deviation)
            deviation.mul_(unit[rows, None]).mul_(unit[columns])
            torch.outer(rest[rows], rest[columns], out=scale)
            deviation.div_(scale.sqrt_()).sub_(cells)
            mean.add_(deviation, alpha=1 / count)
            squares.addcmul_(deviation, deviation)
        squares.addcmul_(mean, mean, value=-count).clamp_min_(0.0).mul_((count - 1) / count).sqrt_()
        for whole, block in ((value, cells), (error, squares)):
            whole[rows, columns] = block
            whole[columns, rows] = block.mT
    return value, error


def without_each_group(
    hsic: Tensor,  # (G, L, L)
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Tensor:
    """CKA (G, rows, columns) with each group of batches left out in turn, from their HSIC sums.

    These are the replicates of a jackknife: the standard error of any smooth function of cells is
    √((G-1)/G Σ (fᵍ - f̄)²) over its values on them.
    """
    own = _without_each(hsic.diagonal(dim1=1, dim2=2))
    return _ratio(_without_each(hsic[:, rows, columns]), own[:, rows], own[:, columns])


def _without_each(
    sums: Tensor,  # (G, ...)
) -> Tensor:
    # One after the other: the order of `sum` hangs on strides, and so would the last bit of a cell.
    return _added(sums) - sums


def _added(groups: Iterable[Tensor]) -> Tensor:
    """Their sum in float64, in their order; of at least one."""
    first, *others = groups
    total = first.to(torch.float64, copy=True)
    step = max(1, _BLOCK // max(1, math.prod(total.shape[1:])))
    for group in others:
        # A block at a time: float32 numbers are first written down as float64 ones.
        for start in range(0, len(total), step):
            total[start : start + step] += group[start : start + step]
    return total


def _ratio(
    hsic: Tensor,  # (..., r, c)
    own_rows: Tensor,  # (..., r)
    own_columns: Tensor,  # (..., c)
) -> Tensor:
    """HSIC_ij / √(HSIC_ii HSIC_jj); NaN where a representation has no variance."""
    row_unit, own_rows = _near_one(own_rows)
    column_unit, own_columns = _near_one(own_columns)
    hsic = hsic * row_unit[..., :, None] * column_unit[..., None, :]
    return hsic / (own_rows[..., :, None] * own_columns[..., None, :]).sqrt()


def _near_one(own: Tensor) -> tuple[Tensor, Tensor]:
    """A power of two for each HSIC, and the HSIC times its square, which is near 1: the product of
    two HSICs may leave float64, and powers of two are exact. NaN where it is not positive."""
    own = torch.where(own > 0, own, math.nan)
    unit = torch.ldexp(torch.ones_like(own), -(torch.frexp(own).exponent // 2))
    return unit, own * unit * unit


def _typical(state: MinibatchCKA) -> int:
    """Samples of the middle one of the groups by size."""
    sizes = sorted(state._group_samples.values())
    return sizes[(len(sizes) - 1) // 2] if sizes else 0


def _wide(groups: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The same in float64."""
    return {number: group.double() for number, group in groups.items()}


Summand = TypeVar("Summand", Tensor, int)


def _sums_of_pairs(parts: dict[int, Summand]) -> dict[int, Summand]:
    """Sums of neighbours by number, 2i and 2i + 1; one without a neighbour stays alone."""
    joined: dict[int, Summand] = {}
    for number, part in parts.items():
        half = number // 2
        joined[half] = joined[half] + part if half in joined else part
    return joined


def _numbered(ours: dict[int, Summand], theirs: dict[int, Summand]) -> dict[int, Summand]:
    """Groups of both, one after the other, with successive numbers."""
    return dict(enumerate(itertools.chain(ours.values(), theirs.values())))


def _exact(
    own: Tensor,  # (L,) float32 squared norms of the Grams
    grams: Tensor,  # (L, m)
) -> bool:
    """Whether squares of all Grams stayed within float32, also times a batch's weight, of 2 at
    most; a Gram of zeros has no others."""
    most = torch.finfo(torch.float32).max / 2
    within = (own >= LEAST_SQUARE * grams.shape[1]) & (own <= most)
    return bool(within.all()) or not bool(grams[~within].any())


def _check_entries(
    grams: Tensor,  # (L, m)
    sizes: Tensor,  # (L,) root mean squares of their entries
) -> None:
    within = (sizes >= least_entry(grams.dtype)) & (sizes < math.inf)
    if bool(within.all()):
        return
    for row in (~within).nonzero().flatten().tolist():
        largest = float(grams[row].abs().amax())  # NaN propagates
        if not math.isfinite(largest):
            raise ValueError(f"grams: expected finite entries, got NaN or Inf in row {row}")
        if largest != 0:
            raise ValueError(
                f"grams: expected entries that {grams.dtype} holds with all digits and float64 "
                f"with their squares, got at most {largest:.3g} in row {row}: scale the features, "
                "which CKA does not see"
            )
