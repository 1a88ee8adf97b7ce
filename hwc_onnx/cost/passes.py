"""How often words pass, by the temporal steps inside a placement: tables of one layer and its unrolls.

A table has one entry for each unroll and number of steps, so all nests of a search share it.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.operands import FX, FY, OX, OY, Nest, dependence
from hwc_onnx.cost.row_table import RowTable, table_width
from hwc_onnx.cost.window import Cut, rows_moved

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Passes:
    """Tables for `unrolls` [u, axes, 8] of `nest`."""

    def __init__(self, nest: Nest, unrolls: Ints) -> None:
        self.nest = nest
        self.unrolls = unrolls
        self.whole: Ints = unrolls.prod(axis=1)
        self._copy_tables: dict[tuple[int, tuple[int, ...]], Floats] = {}
        self._fresh: dict[tuple[Operand, tuple[int, ...]], Floats] = {}
        self._row_tables: dict[tuple[int, tuple[int, ...]], RowTable] = {}

    def inside(self, span: tuple[int, ...]) -> Ints:
        """PEs along each dimension that a memory spanning these array axes serves, [u, 8]."""
        if not span:
            return np.ones_like(self.whole)
        served: Ints = self.unrolls[:, list(span)].prod(axis=1)
        return served

    def copies(self, d: int, span: tuple[int, ...]) -> Floats:
        """Passes over dimension `d`, each counted once per active memory instance along `d`, flat [u * width].

        Index: unroll, then the temporal steps inside the placement. The last pass is as short as it really is.
        """
        key = (d, span)
        if key not in self._copy_tables:
            size = self.nest.sizes[d]
            whole, inside = self.whole[:, d, None], self.inside(span)[:, d, None]
            chunk = np.maximum(1, np.arange(table_width(size)))[None, :] * whole
            passes = -(-size // chunk)
            rest = np.minimum(size - (passes - 1) * chunk, whole)
            table = (passes - 1) * -(-whole // inside) + -(-rest // inside)
            self._copy_tables[key] = table.astype(np.float64).reshape(-1)
        return self._copy_tables[key]

    def fresh(self, operand: Operand, span: tuple[int, ...]) -> Floats:
        """Partial sums that start from nothing at a memory: one per output and instance, [u]."""
        key = (operand, span)
        if key not in self._fresh:
            inside, follows = self.inside(span), dependence(operand, self.nest.dims.transposed)
            words = np.full(len(self.unrolls), float(prod(self.nest.sizes[d] for d in follows.plain)))
            for d in follows.repeated:
                words *= -(-np.minimum(self.whole[:, d], self.nest.sizes[d]) // inside[:, d])
            if follows.windowed:
                words *= self._rows_of_instances(inside)
            self._fresh[key] = words
        return self._fresh[key]

    def _rows_of_instances(self, inside: Ints) -> Floats:
        """Rows times columns of a window that each memory instance ever sees, added over the instances, [u]."""
        found = np.ones(len(self.unrolls))
        for u in range(len(self.unrolls)):
            for axis, o, k in zip(self.nest.axes, (OY, OX), (FY, FX), strict=True):
                cuts = [Cut(self.nest.sizes[d], int(inside[u, d]), int(self.whole[u, d])) for d in (o, k)]
                found[u] *= rows_moved(axis, cuts[0], cuts[1])
        return found

    def windows(self, which: int, span: tuple[int, ...], unroll: Ints, steps_o: Ints, steps_k: Ints) -> Floats:
        """Rows moved along window axis `which` (0 vertical), [..., n]; counted once for each different cut.

        Args:
            which: the axis.
            span: array axes that one memory instance serves.
            unroll: [n] unroll of each nest.
            steps_o: [..., n] temporal steps of the outputs inside the placement.
            steps_k: [..., n] the same of the kernel taps.
        """
        key = (which, span)
        if key not in self._row_tables:
            axis, o, k = self.nest.axes[which], (OY, OX)[which], (FY, FX)[which]
            inside = self.inside(span)
            self._row_tables[key] = RowTable(axis, np.stack([self.whole[:, o], self.whole[:, k], inside[:, o], inside[:, k]], axis=1))
        return self._row_tables[key].rows(unroll, steps_o, steps_k)


__all__ = ["Floats", "Ints", "Passes", "table_width"]
