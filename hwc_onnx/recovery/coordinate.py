"""Coordinate descent: each weight in turn takes its best value while all others stand still.

For a row with target t, matrix A and values q, the gradient is g = (t - q) A, and the best move of entry j alone is
g_j / A_jj. Over integer codes the best code is the nearest integer to that point, clipped to the range, because the
problem is a parabola in each coordinate; so no sweep can increase the error. Zeros of the mask stay zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.obs import BLOCK, blocks, columns_of, rows_of, slices
from hwc_onnx.recovery.scales import best_scale, parabola
from hwc_onnx.recovery.statistics import F64

DENSE = 16
"""One move among this many codes is too many for a sparse product."""
SPAN = 128
"""Columns after which the products follow."""
INNER = 16
"""Columns after which the rest of a span follows."""
FEW = 4
"""One move among this many codes of a column is too many to be followed one by one."""


class Descent:
    """Integer codes [groups, rows, d] on their way down; their products with the matrix follow, so that a refit is free.

    `target` [groups, rows, d] and `pull` = target A may have fewer rows, which then repeat. `pull` and the codes' `products`
    with the matrix are worked out where they are not at hand.
    """

    def __init__(
        self,
        codes: F64,
        target: F64,
        matrix: F64,
        low: int | F64,
        high: int | F64,
        keep: NDArray[np.bool_] | None = None,
        pull: F64 | None = None,
        products: F64 | None = None,
    ) -> None:
        self.codes = codes.copy()
        self.matrix = matrix
        self.low, self.high, self.keep = low, high, keep
        self._copies = codes.shape[1] // target.shape[1]
        self._target = target
        self._pull = target @ matrix if pull is None else pull
        if products is None:
            versions = slices(codes.shape[1], target.shape[1])
            products = np.concatenate([self.codes[:, at] @ matrix for at in versions], axis=1)
        self._products = products
        self._diagonal = np.einsum("gdd->gd", matrix)

    def refit(self, scale: F64) -> F64:
        """Best positive scale per row [groups, rows] for the codes as they are; rows where none exists keep `scale`."""
        return best_scale(self._products, self.codes, self._target, scale)

    def error(self, scale: F64) -> F64:
        """Error of each row [groups, rows] at `scale`, less that of zeros."""
        power, match = parabola(self._products, self.codes, self._target)
        found: F64 = scale * (scale * power - 2 * match)
        return found

    def gradient(self, scale: F64, rows: NDArray[np.int64]) -> F64:
        """(t - q) A [groups, chosen, d] of some `rows` [groups, chosen], each with its `scale` [groups, chosen]."""
        found: F64 = rows_of(self._pull, rows % self._pull.shape[1]) - scale[:, :, None] * rows_of(self._products, rows)
        return found

    def sweep(self, scale: F64) -> bool:
        """Every code once, in order, at `scale` [groups, rows]; whether any moved."""
        moved = False
        for first, last in blocks(self.codes.shape[2], SPAN):
            changes = self._block(scale, first, last)
            if changes.any():
                moved = True
                self._follow(changes, self.matrix[:, first:last])
        return moved

    def _follow(self, changes: F64, span: F64) -> None:
        """Add what `changes` of the codes [groups, columns, rows] do to the products, `span` [groups, columns, d] being the
        matrix there. Few codes move, so the changes are mostly zeros.
        """
        rows = self._target.shape[1]
        group, column, row = np.nonzero(changes != 0)
        version = row // rows
        moved = np.bincount(version, minlength=self._copies)
        dense = (moved > 0) & (len(changes) > 1) | (moved * DENSE > changes.size // self._copies)
        for one in np.flatnonzero(dense):
            at = slice(one * rows, (one + 1) * rows)
            # a run of memory of its own: else the last digits of a single row depend on what it is stacked with
            self._products[:, at] += np.ascontiguousarray(changes[:, :, at]).transpose(0, 2, 1) @ span
        few = np.flatnonzero(~dense[version])
        if len(few):
            self._follow_few(changes[group[few], column[few], row[few]], column[few], row[few], span[0])

    def _follow_few(self, steps: F64, column: NDArray[np.int64], row: NDArray[np.int64], span: F64) -> None:
        """The same for few `steps`, by column and row; one row does not touch another."""
        from scipy.sparse import csc_array

        rows, place = np.unique(row, return_inverse=True)
        edges = np.searchsorted(column, np.arange(len(span) + 1))
        sparse = csc_array((steps, place, edges), shape=(len(rows), len(span)))
        self._products[0, rows] += sparse @ span

    def _block(self, scale: F64, first: int, last: int) -> F64:
        """Move the codes of some columns; by how much [groups, columns, rows]."""
        # [groups, columns, rows], so that each column is one run of memory
        codes, local, pull = (columns_of(array, first, last) for array in (self.codes, self._products, self._pull))
        free = None if self.keep is None else columns_of(self.keep, first, last)
        local *= -scale[:, None]
        local += np.tile(pull, (1, 1, self._copies))
        before = codes.copy()
        square = self.matrix[:, first:last, first:last]
        for start, stop in blocks(last - first, INNER):
            for j in range(start, stop):
                old = before[:, j]
                new = local[:, j] / (scale * self._diagonal[:, None, first + j])
                new += old
                np.rint(new, out=new)
                np.maximum(new, self.low, out=new)
                np.minimum(new, self.high, out=new)
                if free is not None:
                    new *= free[:, j]
                moves = new != old
                if not moves.any():
                    continue
                codes[:, j] = new
                step = (new - old) * scale
                if FEW * np.count_nonzero(moves) < moves.size:
                    group, row = np.nonzero(moves)
                    local[group, j + 1 : stop, row] -= step[group, row, None] * square[group, j, j + 1 : stop]
                else:
                    local[:, j + 1 : stop] -= square[:, j, j + 1 : stop, None] * step[:, None, :]
            if stop < last - first:
                steps = (codes[:, start:stop] - before[:, start:stop]) * scale[:, None]
                for at in slices(steps.shape[2], self._target.shape[1]):
                    local[:, stop:, at] -= square[:, start:stop, stop:].transpose(0, 2, 1) @ steps[:, :, at]
        self.codes[:, :, first:last] = codes.transpose(0, 2, 1)
        codes -= before
        return codes


def descend_values(values: F64, target: F64, matrix: F64, keep: NDArray[np.bool_], sweeps: int = 3) -> F64:
    """The same over real values: approaches the least-squares optimum on the kept positions, row by row."""
    values = values.copy()
    diagonal = np.einsum("gdd->gd", matrix)
    for _ in range(sweeps):
        gradient = (target - values) @ matrix
        for first, last in blocks(values.shape[2], BLOCK):
            local, free = columns_of(gradient, first, last), columns_of(keep, first, last)
            square = matrix[:, first:last, first:last]
            for j in range(last - first):
                local[:, j] *= free[:, j] / diagonal[:, None, first + j]
                local[:, j + 1 :] -= square[:, j, j + 1 :, None] * local[:, j, None, :]
            moves = local.transpose(0, 2, 1)
            values[:, :, first:last] += moves
            if last < values.shape[2]:
                gradient[:, :, last:] -= moves @ matrix[:, first:last, last:]
    return values
