"""Covariance of rows that come batch by batch, whole and without each group of samples."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["GroupedMoments", "is_rounding"]

# What rounding leaves of features that do not vary, in eps of their dtype and of their size.
_CONSTANT_ULPS = 8.0


class GroupedMoments:
    """Scatter of rows about their mean, of all samples or without those of one group.

    Sample i is in group i modulo ``groups``, whatever the batches, with all rows that it has. Rows
    are kept while they are fewer numbers than covariance matrices would be, and their Gram matrix
    is decomposed where there are fewer of them than features; beyond that only sums and products of
    each group are kept, in float64.

    Args:
        groups: Of the jackknife; at least 1.

    Attributes:
        n: Rows so far.
        number: Group of each row so far (n,); None where rows could not be told by their samples.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.n = 0
        self.number: Tensor | None = torch.empty(0, dtype=torch.int64)
        self._samples = 0
        self._kept: list[Tensor] = []
        self._shift = torch.empty(0)  # near the mean, so that squares lose no digits
        self._counts = [0] * groups
        self._sums = torch.empty(0)  # (groups, p)
        self._products = torch.empty(0)  # (groups, p, p)

    def add(self, rows: Tensor, *, samples: int | None = None) -> None:
        """Rows (m, p).

        Args:
            rows: Those of a sample, such as its positions, side by side and as many for each.
            samples: Samples that they are of; by default each row is one. Where m is no multiple of
                it nothing tells whose a row is, and there are no spectra without a group.

        Raises:
            ValueError: Other numbers of features than before.
        """
        rows = rows.detach()
        if self.n == 0:
            self._shift = rows.double().mean(0)
        if rows.shape[1:] != self._shift.shape:
            raise ValueError(
                f"rows must have {len(self._shift)} features as before, got {tuple(rows.shape)}"
            )
        number = self._count(len(rows), len(rows) if samples is None else samples)
        if self._products.numel():
            self._fold(rows, number)
        else:
            self._kept.append(rows.clone())
        self.n += len(rows)
        if self._kept and self.n > self.groups * rows.shape[1]:
            p, together = rows.shape[1], torch.cat(self._kept)
            self._sums = self._shift.new_zeros(self.groups, p)
            self._products = self._shift.new_zeros(self.groups, p, p)
            self._kept = []
            self._fold(together, self._number())

    def spectra(self) -> list[Tensor]:
        """Eigenvalues of the scatter, descending, of all samples and without each group's.

        As many as the smaller of rows and features; those without a group only where there are two
        groups.
        """
        present = [] if self.number is None else sorted(set(self.number.tolist()))
        left_out: list[int | None] = [None, *(present if len(present) > 1 else [])]
        return [self._spectrum(group) for group in left_out]

    def _count(self, rows: int, samples: int) -> Tensor:
        """Groups of the next rows, which are noted."""
        first, self._samples = self._samples, self._samples + samples
        each, ragged = divmod(rows, samples) if samples else (0, rows)
        if ragged or self.number is None:
            self.number = None
            return torch.zeros(rows, dtype=torch.int64)
        number = (torch.arange(first, first + samples) % self.groups).repeat_interleave(each)
        self.number = torch.cat((self.number, number))
        return number

    def _number(self) -> Tensor:
        """Groups of all rows, one where they are not known."""
        return torch.zeros(self.n, dtype=torch.int64) if self.number is None else self.number

    def _fold(self, rows: Tensor, number: Tensor) -> None:
        rows, number = rows.double() - self._shift, number.to(rows.device)
        for group in range(self.groups):
            own = rows[number == group]
            self._counts[group] += len(own)
            self._sums[group] += own.sum(0)
            self._products[group].addmm_(own.T, own)

    def _spectrum(self, without: int | None) -> Tensor:
        if self._products.numel():
            chosen = [g for g in range(self.groups) if g != without]
            n = sum(self._counts[g] for g in chosen)
            total = self._sums[chosen].sum(0)
            scatter = self._products[chosen].sum(0) - torch.outer(total, total) / n
        else:
            rows = torch.cat(self._kept).double()
            if without is not None:
                rows = rows[self._number().to(rows.device) != without]
            rows = rows - rows.mean(0)
            scatter = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
        values: Tensor = torch.linalg.eigvalsh(scatter)
        return values.flip(0).clamp(min=0).cpu()


def is_rounding(scatter: float, size: float, eps: float) -> bool:
    """Whether features do not vary.

    Args:
        scatter: Sum of the squares of all about their means.
        size: Sum of their squares.
        eps: Of the dtype that they came in.
    """
    return scatter <= (_CONSTANT_ULPS * eps) ** 2 * size
