"""Products of many factors: batches of bounded memory hold every pair once, padded with zeros."""

from __future__ import annotations

import pytest
import torch

from repsim_fast.similarity.base.pairs import products


def check(left, right, pairs, **options):
    """All pairs once, the right product, zeros around it; returns the batches."""
    batches = list(products(left, right, pairs, **options))
    numbers = [k for batch in batches for k in batch.numbers]
    assert sorted(numbers) == list(range(len(pairs)))
    for batch in batches:
        assert batch.products.shape[0] == len(batch.numbers)
        for k, block in zip(batch.numbers, batch.products, strict=True):
            i, j = pairs[k]
            expected = left[i].T @ right[j]
            m, n = expected.shape
            torch.testing.assert_close(block[:m, :n], expected)
            assert float(block.abs().sum() - block[:m, :n].abs().sum()) == pytest.approx(
                0, abs=1e-9
            )
    return batches


def factors(widths, n=12):
    return [torch.randn(n, w, dtype=torch.float64) for w in widths]


def test_equal_widths_share_one_product():
    left, right = factors([4] * 5), factors([4] * 3)
    pairs = [(i, j) for i in range(5) for j in range(3)]
    assert len(check(left, right, pairs)) == 1
    assert len(check(left, right, pairs[::-1])) == 1  # in any order
    assert len(check(left, right, pairs[:9])) == 1


def test_one_set_with_itself():
    left = factors([3, 8, 3, 8, 20, 3])
    triangle = [(i, j) for i in range(6) for j in range(i, 6)]
    check(left, left, triangle)
    check(left, left, [(j, i) for i, j in triangle])  # the other triangle
    check(left, left, [(i, j) for i in range(6) for j in range(6) if i != j])


def test_different_widths_are_padded():
    left, right = factors([10, 11, 12, 40]), factors([9, 10, 30, 31])
    pairs = [(i, j) for i in range(4) for j in range(4)]
    batches = check(left, right, pairs)
    assert len(batches) < 16
    for batch in batches:
        sizes = [
            (left[i].shape[1], right[j].shape[1]) for i, j in (pairs[k] for k in batch.numbers)
        ]
        if batch.rows is None:
            assert set(sizes) == {tuple(batch.products.shape[1:])}
        else:
            assert sizes == list(zip(batch.rows, batch.columns, strict=True))


def test_few_of_many_pairs_are_multiplied_alone():
    left, right = factors([5] * 20), factors([5] * 20)
    check(left, right, [(k, k) for k in range(20)])


def test_samples_may_differ_between_pairs_that_do_not_meet():
    left = [torch.randn(n, 3) for n in (5, 6, 5, 7)]
    right = [torch.randn(n, 3) for n in (5, 6, 5, 7)]
    check(left, right, [(k, k) for k in range(4)])


@pytest.mark.parametrize("memory", [1, 500, 5000, 10**9])
def test_memory_bounds_the_products(memory):
    left, right = factors([4, 5, 5, 4, 6, 5, 9]), factors([4, 4, 12])
    pairs = [(i, j) for i in range(7) for j in range(3)]
    for batch in check(left, right, pairs, memory=memory):
        one = batch.products[0].nbytes
        assert batch.products.nbytes <= max(memory, one)


def test_gradients_pass_through():
    left = [f.requires_grad_() for f in factors([3, 4])]
    values = [b.products.square().sum() for b in products(left, left, [(0, 0), (0, 1), (1, 1)])]
    torch.stack(values).sum().backward()
    a, b = (f.detach() for f in left)
    gradient = 4 * a @ (a.T @ a) + 2 * b @ (b.T @ a)
    torch.testing.assert_close(left[0].grad, gradient)
