"""How often words pass, by the temporal steps inside a placement: tables of one layer and its unrolls.

A table has one entry for each unroll and number of steps, so all nests of a search share it.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.operands import FX, FY, OX, OY, Nest, dependence
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
        self._row_tables: dict[tuple[int, tuple[int, ...]], tuple[Floats, Ints, Ints]] = {}

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
        axis, o, k = self.nest.axes[which], (OY, OX)[which], (FY, FX)[which]
        key = (which, span)
        if key not in self._row_tables:
            pairs = np.stack(
                [self.whole[:, o], self.whole[:, k], self.inside(span)[:, o], self.inside(span)[:, k]], axis=1
            )
            kinds, kind_of = np.unique(pairs, axis=0, return_inverse=True)
            size = len(kinds) * table_width(axis.outputs) * table_width(axis.taps)
            self._row_tables[key] = (np.full(size, np.nan), kinds, kind_of.reshape(-1))
        table, kinds, kind_of = self._row_tables[key]
        over, under = table_width(axis.outputs), table_width(axis.taps)
        code = (kind_of[unroll] * over + steps_o) * under + steps_k
        values: Floats = table[code]
        missing = code[np.isnan(values)]
        if missing.size:
            wanted = np.zeros(table.size, dtype=np.bool_)
            wanted[missing] = True
            for unknown in np.nonzero(wanted)[0].tolist():
                kind, rest = divmod(unknown, over * under)
                inner_o, inner_k = divmod(rest, under)
                whole_o, whole_k, inside_o, inside_k = kinds[kind].tolist()
                table[unknown] = rows_moved(axis, Cut(inner_o, inside_o, whole_o), Cut(inner_k, inside_k, whole_k))
            values = table[code]
        return values


def table_width(size: int) -> int:
    """Entries of a table indexed by temporal steps 0..size."""
    return size + 1
