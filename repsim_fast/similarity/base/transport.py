"""Exact optimal transport between two sets whose members all weigh the same."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Copies of the members of both sets, so that they are as many, up to which an assignment is faster
# than a linear program.
COPIES = 4

# Partners of each member that the linear program starts with, and adds at most each time.
PARTNERS = 8

# Reduced costs, as shares of the largest cost above the least of its row and column, down to which
# a plan is optimal: the least that the program's solver can be told, which is left at 1e-7.
OPTIMAL = 1e-10
_TOLERANCES = {"dual_feasibility_tolerance": OPTIMAL, "primal_feasibility_tolerance": OPTIMAL}


def transport(
    costs: Tensor,  # (p, q)
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and weights of the plan of least cost: rows hand out 1/p, columns take 1/q."""
    table: NDArray[np.float64] = costs.detach().cpu().double().numpy()
    p, q = table.shape
    if math.lcm(p, q) <= COPIES * max(p, q):
        rows, columns, weights = _by_assignment(table)
    else:
        rows, columns, weights = _by_program(table)
    return (
        torch.as_tensor(rows).to(costs.device),
        torch.as_tensor(columns).to(costs.device),
        torch.as_tensor(weights).to(costs.device),
    )


_Plan = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _by_assignment(table: NDArray[np.float64]) -> _Plan:
    from scipy.optimize import linear_sum_assignment  # here: it takes longer to import than this

    p, q = table.shape
    size = math.lcm(p, q)
    copied = table.repeat(size // p, axis=0).repeat(size // q, axis=1)
    rows, columns = linear_sum_assignment(copied)
    return rows // (size // p), columns // (size // q), np.full(size, 1 / size)


def _by_program(table: NDArray[np.float64]) -> _Plan:
    """A linear program over a few partners of each, until no others would be cheaper."""
    from scipy.optimize import linprog
    from scipy.sparse import csc_array

    p, q = table.shape
    # What all partners of one cost alike moves no plan, but may be most of the numbers, as where
    # one feature is much larger than the others: what tells partners apart would be rounding.
    costs = table - table.min(axis=1, keepdims=True)
    costs -= costs.min(axis=0)
    costs /= costs.max() or 1.0
    wanted = np.concatenate([np.full(p, 1 / p), np.full(q, 1 / q)])
    chosen = _cheapest(costs)
    chosen[_some_plan(p, q)] = True
    while True:
        rows, columns = chosen.nonzero()
        pairs = np.arange(len(rows))
        sums = csc_array(
            (np.ones(2 * len(rows)), (np.concatenate([rows, p + columns]), np.tile(pairs, 2))),
            shape=(p + q, len(rows)),
        )
        found = linprog(
            costs[rows, columns], A_eq=sums, b_eq=wanted, method="highs-ds", options=_TOLERANCES
        )
        if found.status != 0:
            raise RuntimeError(f"transport: the linear program failed: {found.message}")
        prices = found.eqlin.marginals
        # Of pairs that are in the program it has decided: that they are there must end this.
        reduced = np.where(chosen, np.inf, costs - prices[:p, None] - prices[None, p:])
        cheaper = reduced < -OPTIMAL
        if not cheaper.any():
            used = found.x > 0
            return rows[used], columns[used], found.x[used]
        chosen |= cheaper & _cheapest(reduced)


def _cheapest(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A few of each row and of each column."""
    p, q = costs.shape
    chosen = np.zeros((p, q), dtype=bool)
    of_rows, of_columns = min(PARTNERS, q) - 1, min(PARTNERS, p) - 1
    best = np.argpartition(costs, of_rows, axis=1)[:, : of_rows + 1]
    np.put_along_axis(chosen, best, True, axis=1)
    best = np.argpartition(costs, of_columns, axis=0)[: of_columns + 1]
    np.put_along_axis(chosen, best, True, axis=0)
    return chosen


def _some_plan(p: int, q: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs that the program can always use: rows and columns in turn, until all is handed out."""
    size = math.lcm(p, q)
    ends = np.union1d(np.arange(1, p + 1) * (size // p), np.arange(1, q + 1) * (size // q))
    starts = np.concatenate([[0], ends[:-1]])
    return starts // (size // p), starts // (size // q)
