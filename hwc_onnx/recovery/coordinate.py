"""Coordinate descent: each weight in turn takes its best value while all others stand still.

For a row with target t, matrix A and values q, the gradient is g = (t - q) A, and the best move of entry j alone is
g_j / A_jj. Over integer codes the best code is the nearest integer to that point, clipped to the range, because the
problem is a parabola in each coordinate; so no sweep can increase the error. Zeros of the mask stay zero.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.obs import BLOCK, blocks
from hwc_onnx.recovery.statistics import F64

T = TypeVar("T", np.float64, np.bool_)


class Descent:
    """Integer codes [groups, rows, d] on their way down; their products with the matrix follow, so that a refit is free.

    `target` [groups, rows, d] and `pull` = target A may have fewer rows, which then repeat.
    """

    def __init__(
        self,
        codes: F64,
        target: F64,
        matrix: F64,
        low: int | F64,
        high: int | F64,
        keep: NDArray[np.bool_] | None = None,
    ) -> None:
        self.codes = codes.copy()
        self.matrix = matrix
        self.low, self.high, self.keep = low, high, keep
        self._copies = codes.shape[1] // target.shape[1]
        self._target = target
        self._pull = target @ matrix
        self._products = self.codes @ matrix
        self._diagonal = np.einsum("gdd->gd", matrix)

    def refit(self, scale: F64) -> F64:
        """Best positive scale per row [groups, rows] for the codes as they are; rows where none exists keep `scale`."""
        power = np.einsum("grd,grd->gr", self._products, self.codes)
        groups, _, width = self.codes.shape
        products = self._products.reshape(groups, self._copies, -1, width)
        match = np.einsum("gcrd,grd->gcr", products, self._target).reshape(power.shape)
        usable = (power > 0) & (match > 0)
        refitted: F64 = np.where(usable, match / np.where(power > 0, power, 1.0), scale)
        return refitted

    def sweep(self, scale: F64) -> bool:
        """Every code once, in order, at `scale` [groups, rows]; whether any moved."""
        moved = False
        for first, last in blocks(self.codes.shape[2], BLOCK):
            changes = self._block(scale, first, last)
            rows = np.flatnonzero(changes.any(axis=(0, 1)))
            if len(rows):
                moved = True
                span = self.matrix[:, first:last]
                if 2 * len(rows) < changes.shape[2]:
                    self._products[:, rows] += changes[:, :, rows].transpose(0, 2, 1) @ span
                else:
                    self._products += changes.transpose(0, 2, 1) @ span
        return moved

    def _block(self, scale: F64, first: int, last: int) -> F64:
        """Move the codes of some columns; by how much [groups, columns, rows]."""
        # [groups, columns, rows], so that each column is one run of memory
        codes, local, pull = (_columns(array, first, last) for array in (self.codes, self._products, self._pull))
        free = None if self.keep is None else _columns(self.keep, first, last)
        local *= -scale[:, None]
        local += np.tile(pull, (1, 1, self._copies))
        before = codes.copy()
        square = self.matrix[:, first:last, first:last]
        for j in range(last - first):
            old = before[:, j]
            new = local[:, j] / (scale * self._diagonal[:, None, first + j])
            new += old
            np.rint(new, out=new)
            np.maximum(new, self.low, out=new)
            np.minimum(new, self.high, out=new)
            if free is not None:
                new *= free[:, j]
            step = (new - old) * scale
            group, row = np.nonzero(step)
            if not len(row):
                continue
            codes[:, j] = new
            if 4 * len(row) < step.size:
                local[group, j + 1 :, row] -= step[group, row, None] * square[group, j, j + 1 :]
            else:
                local[:, j + 1 :] -= square[:, j, j + 1 :, None] * step[:, None, :]
        self.codes[:, :, first:last] = codes.transpose(0, 2, 1)
        codes -= before
        return codes


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
    descent = Descent(codes, target, matrix, low, high, keep)
    for _ in range(sweeps):
        if not descent.sweep(scale):
            break
    return descent.codes


def _columns(array: NDArray[T], first: int, last: int) -> NDArray[T]:
    """Some columns of `array` [groups, rows, d], each one run of memory: [groups, columns, rows]."""
    return np.ascontiguousarray(array[:, :, first:last].transpose(0, 2, 1))


def descend_values(values: F64, target: F64, matrix: F64, keep: NDArray[np.bool_], sweeps: int = 3) -> F64:
    """The same over real values: approaches the least-squares optimum on the kept positions, row by row."""
    values = values.copy()
    diagonal = np.einsum("gdd->gd", matrix)
    for _ in range(sweeps):
        gradient = (target - values) @ matrix
        for first, last in blocks(values.shape[2], BLOCK):
            local, free = _columns(gradient, first, last), _columns(keep, first, last)
            square = matrix[:, first:last, first:last]
            for j in range(last - first):
                local[:, j] *= free[:, j] / diagonal[:, None, first + j]
                local[:, j + 1 :] -= square[:, j, j + 1 :, None] * local[:, j, None, :]
            moves = local.transpose(0, 2, 1)
            values[:, :, first:last] += moves
            if last < values.shape[2]:
                gradient[:, :, last:] -= moves @ matrix[:, first:last, last:]
    return values
