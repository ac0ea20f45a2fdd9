"""Products AᵢᵀBⱼ of the factors of many pairs of representations, in batches of bounded memory.

Factors of similar width stand side by side in one matrix, so that one large product serves many
pairs; their products are cut out of it and padded to one size for batched operators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram, cross_gram

Pairs: TypeAlias = "Sequence[tuple[int, int]]"
"""Numbers of a left and a right representation, for each pair to compare."""

# Bytes of the products that are held at once.
MEMORY = 256 * 2**20

# Factors share a batch when the widest is at most this much wider than the narrowest: singular
# values cost the cube of the padded width.
WIDTH_RATIO = 1.2


Padded: TypeAlias = "tuple[Tensor, list[int] | None, list[int] | None]"
"""Matrices (B, m, n), and their heights and widths where these differ."""


def all_pairs(rows: int, columns: int, *, mirrored: bool) -> list[tuple[int, int]]:
    """Every pair; of a set with itself, ``mirrored``, those on and above the diagonal."""
    return [(i, j) for i in range(rows) for j in range(i if mirrored else 0, columns)]


def filled(
    matrix: Tensor,  # (L, M)
    pairs: Pairs,
    values: Tensor,  # (len(pairs),)
    *,
    mirrored: bool,
) -> Tensor:
    """The matrix with values at pairs, and where they are mirrored below the diagonal, too."""
    rows, columns = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
    matrix = matrix.to(values.device).index_put((rows, columns), values)
    return matrix.index_put((columns, rows), values) if mirrored else matrix


class Batch(NamedTuple):
    """Products of some pairs, zero-padded to one size."""

    numbers: list[int]  # which of the pairs
    products: Tensor  # (B, m, n)
    rows: list[int] | None = None  # sizes of smaller products, None where all are (m, n)
    columns: list[int] | None = None


def products(
    left: Sequence[Tensor],  # (n, k_i) each
    right: Sequence[Tensor],  # (n, k_j) each; the same object for pairs within one set
    pairs: Pairs,
    *,
    memory: int = MEMORY,
) -> Iterator[Batch]:
    """Yields the products of all pairs, each pair once, similar sizes together."""
    if left is right:
        members = {i for pair in pairs for i in pair}
        lefts = rights = _groups(left, members, memory)
    else:
        lefts = _groups(left, {i for i, _ in pairs}, memory)
        rights = _groups(right, {j for _, j in pairs}, memory)
    left_group = {i: g for g, group in enumerate(lefts) for i in group}
    right_group = {j: g for g, group in enumerate(rights) for j in group}
    straight: dict[tuple[int, int], list[int]] = {}
    flipped: dict[tuple[int, int], list[int]] = {}
    for number, (i, j) in enumerate(pairs):
        a, b = left_group[i], right_group[j]
        if left is right and a > b:  # the transpose of a product that others need as it is
            flipped.setdefault((b, a), []).append(number)
        else:
            straight.setdefault((a, b), []).append(number)
    for a, b in sorted(straight.keys() | flipped.keys()):
        some, others = straight.get((a, b), []), flipped.get((a, b), [])
        same = left is right and a == b
        size = len(lefts[a]) * (len(lefts[a]) + 1) // 2 if same else len(lefts[a]) * len(rights[b])
        if 2 * (len(some) + len(others)) > size:
            cut = _Cut([left[i] for i in lefts[a]], [right[j] for j in rights[b]], same)
            row = {i: r for r, i in enumerate(lefts[a])}
            column = {j: c for c, j in enumerate(rights[b])}
            if some:
                cells = [(row[pairs[k][0]], column[pairs[k][1]]) for k in some]
                yield Batch(some, *cut.blocks(cells))
            if others:
                cells = [(row[pairs[k][1]], column[pairs[k][0]]) for k in others]
                blocks, rows, columns = cut.blocks(cells)
                yield Batch(others, blocks.mT, columns, rows)
        else:
            yield from _one_by_one(left, right, pairs, some, memory)
            yield from _one_by_one(left, right, pairs, others, memory)


def _groups(factors: Sequence[Tensor], members: set[int], memory: int) -> list[list[int]]:
    """Members of similar width, so many that the product of two groups stays within memory."""
    groups: list[list[int]] = []
    columns = 0
    for i in sorted(members, key=lambda i: (factors[i].shape[1], i)):
        samples, width = factors[i].shape
        fits = (
            bool(groups)
            and columns + width <= (memory / factors[i].element_size()) ** 0.5
            and width <= WIDTH_RATIO * factors[groups[-1][0]].shape[1]
            and samples == factors[groups[-1][0]].shape[0]
        )
        if fits:
            groups[-1].append(i)
        else:
            groups.append([i])
        columns = columns + width if fits else width
    return groups


class _Cut:
    """All products of two groups of factors, to cut those of pairs out of."""

    def __init__(self, left: list[Tensor], right: list[Tensor], same: bool) -> None:
        self.heights = [factor.shape[1] for factor in left]
        self.widths = [factor.shape[1] for factor in right]
        beside = torch.cat(left, dim=1) if len(left) > 1 else left[0]
        if same:
            self.everything = centered_gram(beside.mT, centering="none")  # computes one triangle
        else:
            other = torch.cat(right, dim=1) if len(right) > 1 else right[0]
            self.everything = cross_gram(beside, other)

    def blocks(self, cells: list[tuple[int, int]]) -> Padded:
        """Blocks (B, m, n) at rows and columns of the groups, and their sizes."""
        rows, columns = zip(*cells, strict=True)
        shape = (len(self.heights), self.heights[0], len(self.widths), self.widths[0])
        if len(set(self.heights)) == len(set(self.widths)) == 1:
            blocks = self.everything.view(shape).transpose(1, 2)
            in_order = cells == list(product(range(shape[0]), range(shape[2])))
            chosen = blocks.flatten(0, 1) if in_order else blocks[list(rows), list(columns)]
            return chosen, None, None
        strips = torch.split(self.everything, self.heights, dim=0)
        parts = [torch.split(strip, self.widths, dim=1) for strip in strips]
        return padded([parts[r][c] for r, c in cells])


def _one_by_one(
    left: Sequence[Tensor], right: Sequence[Tensor], pairs: Pairs, numbers: list[int], memory: int
) -> Iterator[Batch]:
    if not numbers:
        return
    shapes = [(left[i].shape[1], right[j].shape[1]) for i, j in (pairs[k] for k in numbers)]
    largest = max(h for h, _ in shapes) * max(w for _, w in shapes)
    count = max(1, memory // (largest * left[pairs[numbers[0]][0]].element_size()))
    for start in range(0, len(numbers), count):
        some = numbers[start : start + count]
        yield Batch(
            some, *padded([cross_gram(left[i], right[j]) for i, j in (pairs[k] for k in some)])
        )


def padded(matrices: list[Tensor]) -> Padded:
    """Stacks matrices, padded with zeros to the largest height and width."""
    heights, widths = [m.shape[0] for m in matrices], [m.shape[1] for m in matrices]
    height, width = max(heights), max(widths)
    if min(heights) == height and min(widths) == width:
        return torch.stack(matrices), None, None
    pad = torch.nn.functional.pad
    padded = [
        pad(matrix, (0, width - w, 0, height - h))
        for matrix, h, w in zip(matrices, heights, widths, strict=True)
    ]
    return torch.stack(padded), heights, widths
