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

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.statistics import F64

POOL = 32
ROWS = 256
"""Rows that are looked at together; more would not stay near the processor."""
MOST_PAIRS = 48
"""Pairs that a row moves in one call at most."""
LEAST_GAIN = 1e-6
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
) -> F64:
    """Codes [groups, rows, d] of no larger error; zeros of the mask stay zero.

    `scale`, `low` and `high` are per row [groups, rows].
    """
    codes = codes.copy()
    for group in range(codes.shape[0]):
        for first in range(0, codes.shape[1], ROWS):
            at = group, slice(first, first + ROWS)
            mask = None if keep is None else keep[at]
            _move(codes[at], scale[at], target[at], matrix[group], low[at], high[at], mask, pool, most)
    return codes


def _move(
    codes: F64,
    scale: F64,
    target: F64,
    matrix: F64,
    low: F64,
    high: F64,
    keep: NDArray[np.bool_] | None,
    pool: int,
    most: int,
) -> None:
    """Move pairs of one group's codes [rows, d] in place."""
    difference = target - codes * scale[:, None]
    gradient = difference @ matrix
    least = LEAST_GAIN * np.einsum("rd,rd->r", gradient, difference)
    diagonal = np.diag(matrix)
    pool = min(pool, codes.shape[1])
    if pool < 2:
        return
    together = (-2 * matrix).astype(np.float32)
    active = np.arange(len(codes))
    for _ in range(most):
        step = scale[active, None]
        own, slope = step**2 * diagonal, 2 * step * gradient[active]
        up = np.where(codes[active] < high[active, None], own - slope, np.inf)
        down = np.where(codes[active] > low[active, None], own + slope, np.inf)
        if keep is not None:
            up, down = (np.where(keep[active], cost, np.inf) for cost in (up, down))
        # the best pair is looked for in float32, what it gains is computed in float64
        rising, falling = (np.argpartition(cost.astype(np.float32), pool - 1, axis=1)[:, :pool] for cost in (up, down))
        change = together.take(rising[:, :, None] * len(matrix) + falling[:, None, :])
        change *= (step**2).astype(np.float32)[:, :, None]
        start = np.arange(len(active))[:, None] * len(matrix)
        change += up.take(start + rising).astype(np.float32)[:, :, None]
        change += down.take(start + falling).astype(np.float32)[:, None, :]
        best = change.reshape(len(active), -1).argmin(axis=1)
        which = np.arange(len(active))
        i, j = rising[which, best // pool], falling[which, best % pool]
        helps = up[which, i] + down[which, j] - 2 * step[:, 0] ** 2 * matrix[i, j] < -least[active]
        if not helps.any():
            return
        active = active[helps]
        for column, sign in ((i[helps], 1.0), (j[helps], -1.0)):
            codes[active, column] += sign
            gradient[active] -= (scale[active] * sign)[:, None] * matrix[column]
