"""Two codes at once: where no single code can move for the better, a pair of them often can.

Moving code i of a row by a and code j by b (+1 or -1 each) changes the error by

    D_i(a) + D_j(b) + 2 a b s^2 A_ij        D_i(a) = s^2 A_ii - 2 a s g_i        g = (t - s c) A

so two moves that each cost little and whose columns go together can pay. Inputs next to one another mostly go together
(A_ij > 0), so one code goes up and one down: of each row the `POOL` cheapest single moves either way are combined, the best
pair is taken, and so on until no pair helps. Pairs that move the same way would cost four times the time for little more.
Coordinate descent is the same with one code.

Source: the two-coordinate step of sequential minimal optimisation (Platt, 1998), on integers; the quadratic is that of GPTQ
(Frantar et al., ICLR 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.statistics import F64

Move = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Rows, and of each the code that goes up and the one that goes down."""

POOL = 32
ROWS = 256
"""Rows that are looked at together; more would not stay near the processor."""
MOST_PAIRS = 48
"""Pairs that a row moves in one call at most."""
AT_ONCE = 12
"""Pairs that a row moves among the same few columns before these are chosen anew."""
LEAST_GAIN = 1e-4
"""A pair is moved where it takes at least this share of the row's error."""


def move_pairs(
    codes: F64,
    scale: F64,
    target: F64,
    matrix: F64,
    low: F64,
    high: F64,
    keep: NDArray[np.bool_] | None = None,
    pool: int = POOL,
    most: int = MOST_PAIRS,
    gradient: F64 | None = None,
) -> F64:
    """Codes [groups, rows, d] of no larger error; zeros of the mask stay zero.

    `scale`, `low` and `high` are per row [groups, rows]; a `gradient` (t - q) A [groups, rows, d] follows the codes in place.
    """
    codes = codes.copy()
    if gradient is None:
        gradient = (target - codes * scale[:, :, None]) @ matrix
    width = codes.shape[2]
    owner = np.repeat(np.arange(len(codes)), codes.shape[1])
    rows, step = codes.reshape(-1, width), gradient.reshape(-1, width)
    aim, free = target.reshape(-1, width), None if keep is None else keep.reshape(-1, width)
    size, least, largest = (np.broadcast_to(array, codes.shape[:2]).reshape(-1) for array in (scale, low, high))
    pool = min(pool, width)
    for first in range(0, len(rows) if pool > 1 else 0, ROWS):
        at = slice(first, first + ROWS)
        mask = None if free is None else free[at]
        _move(rows[at], step[at], aim[at], size[at], least[at], largest[at], matrix, owner[at], mask, pool, most)
    return codes


def _move(
    codes: F64,
    gradient: F64,
    target: F64,
    scale: F64,
    low: F64,
    high: F64,
    matrix: F64,
    owner: NDArray[np.int64],
    keep: NDArray[np.bool_] | None,
    pool: int,
    most: int,
) -> None:
    """Move pairs of codes [rows, d] and their gradient in place; `owner` is the matrix of each row."""
    least = LEAST_GAIN * np.einsum("rd,rd->r", gradient, target - codes * scale[:, None])
    diagonal = np.einsum("gdd->gd", matrix)
    width = codes.shape[1]
    together = matrix[owner[0] : owner[-1] + 1].astype(np.float32, copy=False)
    active = np.arange(len(codes))
    for _ in range(0, most, AT_ONCE):
        step, own_matrix = scale[active, None], owner[active]
        own, slope = step**2 * diagonal[own_matrix], 2 * step * gradient[active]
        up = np.where(codes[active] < high[active, None], own - slope, np.inf)
        down = np.where(codes[active] > low[active, None], own + slope, np.inf)
        if keep is not None:
            up, down = (np.where(keep[active], cost, np.inf) for cost in (up, down))
        chosen = [np.argpartition(cost.astype(np.float32, copy=False), pool - 1, axis=1)[:, :pool] for cost in (up, down)]
        start = ((own_matrix - owner[0]) * width**2)[:, None, None]
        cross = together.take(start + chosen[0][:, :, None] * width + chosen[1][:, None, :])
        cross *= (-2 * step**2).astype(np.float32)[:, :, None]
        columns = np.concatenate(chosen, axis=1)
        few = _Few(columns, pool, step, gradient[active[:, None], columns], own[np.arange(len(active))[:, None], columns])
        few.open[:, :pool] = np.isfinite(np.take_along_axis(up, chosen[0], axis=1))
        few.open[:, pool:] = np.isfinite(np.take_along_axis(down, chosen[1], axis=1))
        few.room[:, :pool] = high[active, None] - codes[active[:, None], chosen[0]]
        few.room[:, pool:] = codes[active[:, None], chosen[1]] - low[active, None]
        moves = few.move(cross, matrix, own_matrix, least[active])
        if not moves:
            return
        for rows, i, j in moves:
            codes[active[rows], i] += 1.0
            codes[active[rows], j] -= 1.0
        gradient[active] -= step * _products(moves, matrix, own_matrix)
        active = active[moves[0][0]]


def _products(moves: Sequence[Move], matrix: F64, owner: NDArray[np.int64]) -> F64:
    """What the codes' changes multiply to with their matrices [rows, d], which `owner` names for each row."""
    from scipy.sparse import csr_array

    width = matrix.shape[1]
    row, up, down = (np.concatenate(parts) for parts in zip(*moves, strict=True))
    first = owner[row] * width
    signs = np.repeat(np.array([1.0, -1.0], dtype=matrix.dtype), len(row))
    at = (np.concatenate([row, row]), np.concatenate([first + up, first + down]))
    changes = csr_array((signs, at), shape=(len(owner), len(matrix) * width))
    return np.asarray(changes @ matrix.reshape(-1, width))


class _Few:
    """The cheapest moves of some rows [rows, 2 pool]: `pool` columns upwards, then as many downwards.

    What a move costs follows the moves made here; other columns are out of sight meanwhile.
    """

    def __init__(self, columns: NDArray[np.int64], pool: int, step: F64, gradient: F64, own: F64) -> None:
        self.columns, self.pool, self.step = columns, pool, step
        self.gradient, self.own = gradient, own
        self.open = np.zeros(columns.shape, dtype=bool)
        self.room = np.zeros(columns.shape)
        self.sign = np.repeat(np.array([1.0, -1.0], dtype=step.dtype), pool)

    def move(
        self, cross: NDArray[np.float32], matrix: F64, owner: NDArray[np.int64], least: F64
    ) -> list[Move]:
        """Up to `AT_ONCE` times the best pair of each row, while it gains at least `least` [rows]: (rows, up, down)."""
        moves = []
        going = np.arange(len(self.columns))
        for _ in range(AT_ONCE):
            step = self.step[going]
            cost = self.own[going] - 2 * self.sign * step * self.gradient[going]
            cost = np.where(self.open[going] & (self.room[going] > 0), cost, np.inf)
            # what the best pair gains is computed anew: this search is in single precision, the rest may be in double
            single = cost.astype(np.float32, copy=False)
            change = cross[going] + single[:, : self.pool, None]
            change += single[:, None, self.pool :]
            best = change.reshape(len(going), -1).argmin(axis=1)
            which = np.arange(len(going))
            p, q = best // self.pool, self.pool + best % self.pool
            i, j = self.columns[going, p], self.columns[going, q]
            helps = cost[which, p] + cost[which, q] - 2 * step[:, 0] ** 2 * matrix[owner[going], i, j] < -least[going]
            if not helps.any():
                break
            going, i, j, p, q = going[helps], i[helps], j[helps], p[helps], q[helps]
            self.room[going, p] -= 1
            self.room[going, q] -= 1
            columns, here = self.columns[going], owner[going, None]
            moved = matrix[here, i[:, None], columns] - matrix[here, j[:, None], columns]
            self.gradient[going] -= self.step[going] * moved
            moves.append((going, i, j))
        return moves
