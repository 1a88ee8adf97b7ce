"""Coordinate descent: each weight in turn takes its best value while all others stand still.

For a row with target t, matrix A and values q, the gradient is g = (t - q) A, and the best move of entry j alone is
g_j / A_jj. Over integer codes the best code is the nearest integer to that point, clipped to the range, because the
problem is a parabola in each coordinate; so no sweep can increase the error. Zeros of the mask stay zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.obs import BLOCK, blocks
from hwc_onnx.recovery.statistics import F64


def descend_codes(
    codes: F64,
    scale: F64,
    target: F64,
    matrix: F64,
    low: int | F64,
    high: int | F64,
    keep: NDArray[np.bool_] | None = None,
    sweeps: int = 4,
) -> F64:
    """Cyclic sweeps over integer codes [groups, rows, d]; stops when none moves.

    `scale` and, where they differ, `low` and `high` are per row [groups, rows].
    """
    codes = codes.copy()
    diagonal = np.einsum("gdd->gd", matrix)
    for _ in range(sweeps):
        gradient = (target - codes * scale[:, :, None]) @ matrix
        moved = False
        for first, last in blocks(codes.shape[2], BLOCK):
            # [groups, columns, rows], so that each column is one run of memory
            local = np.ascontiguousarray(gradient[:, :, first:last].transpose(0, 2, 1))
            square = matrix[:, first:last, first:last]
            moves = np.zeros_like(local)
            for j in range(last - first):
                old = codes[:, :, first + j]
                best = np.rint(old + local[:, j] / (scale * diagonal[:, None, first + j]))
                new = np.minimum(np.maximum(best, low), high)
                if keep is not None:
                    new *= keep[:, :, first + j]
                step = (new - old) * scale
                group, row = np.nonzero(step)
                if not len(row):
                    continue
                moves[:, j] = step
                codes[:, :, first + j] = new
                if 4 * len(row) < step.size:
                    local[group, j + 1 :, row] -= step[group, row, None] * square[group, j, j + 1 :]
                else:
                    local[:, j + 1 :] -= square[:, j, j + 1 :, None] * step[:, None, :]
            if moves.any():
                moved = True
                if last < codes.shape[2]:
                    gradient[:, :, last:] -= moves.transpose(0, 2, 1) @ matrix[:, first:last, last:]
        if not moved:
            break
    return codes


def descend_values(values: F64, target: F64, matrix: F64, keep: NDArray[np.bool_], sweeps: int = 3) -> F64:
    """The same over real values: approaches the least-squares optimum on the kept positions, row by row."""
    values = values.copy()
    diagonal = np.einsum("gdd->gd", matrix)
    for _ in range(sweeps):
        gradient = (target - values) @ matrix
        for first, last in blocks(values.shape[2], BLOCK):
            local = np.ascontiguousarray(gradient[:, :, first:last].transpose(0, 2, 1))
            square = matrix[:, first:last, first:last]
            for j in range(last - first):
                local[:, j] *= keep[:, :, first + j] / diagonal[:, None, first + j]
                local[:, j + 1 :] -= square[:, j, j + 1 :, None] * local[:, j, None, :]
            moves = local.transpose(0, 2, 1)
            values[:, :, first:last] += moves
            if last < values.shape[2]:
                gradient[:, :, last:] -= moves @ matrix[:, first:last, last:]
    return values
