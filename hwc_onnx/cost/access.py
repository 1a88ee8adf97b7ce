"""Exact access counts of many loop nests of one layer at once.

A nest is a spatial unroll and temporal loops, inner to outer. An operand's tile in a memory is held while loops that
do not grow it go round (stationarity needs no case analysis): it is placed after the largest number of loops whose
tile still fits. Words that enter the memory over the layer are then a product over dimensions: one the operand
follows contributes its whole size, one it repeats over the number of passes outside the placement, the window the
distinct rows of all tiles. The last pass of a dimension is as short as it really is. One thing is counted too often:
where a dimension has two loops outside the tile and the last pass of the outer one has a single step, the loops
between them find the same tile again, and it is counted as fetched again (`exact` counts single nests without that).

Source: the counting rule common to Timeloop (ISPASS 2019), Interstellar (ASPLOS 2020) and ZigZag (TC 2021), with
uneven placement as in ZigZag. Differs from them: passes are whole numbers and edge tiles are counted as they are.
"""

from __future__ import annotations

from math import prod

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.operands import FX, FY, OX, OY, Nest, dependence
from hwc_onnx.cost.passes import Floats, Ints, Passes, table_width
from hwc_onnx.cost.window import Axis, rows_held


class Nests:
    """`n` nests of one layer.

    Args:
        nest: the layer.
        unrolls: [u, axes, 8] PEs along each array axis and dimension.
        which: [n] row of `unrolls` that each nest uses.
        loop_dims: [n, l] dimension of each temporal loop, inner to outer.
        loop_sizes: [n, l] its trips (1 where a loop is absent).
        passes: tables of this layer and these unrolls, to be shared by many sets of nests.
    """

    def __init__(
        self, nest: Nest, unrolls: Ints, which: Ints, loop_dims: Ints, loop_sizes: Ints, passes: Passes | None = None
    ) -> None:
        self.nest = nest
        self.unrolls = unrolls
        self.which = which
        self.passes = passes if passes is not None else Passes(nest, unrolls)
        self.whole: Ints = self.passes.whole
        present = (loop_sizes > 1).any(axis=0)
        loop_dims, loop_sizes = loop_dims[:, present], loop_sizes[:, present]
        self.count, self.depth = loop_sizes.shape
        self.loop_dims, self.loop_sizes = loop_dims, loop_sizes
        self.rows = np.arange(self.count)
        self._extent: dict[int, Ints] = {}
        for d, size in enumerate(nest.sizes):
            if size > 1:
                grown = np.ones((self.count, self.depth + 1), dtype=np.int64)
                np.cumprod(np.where(loop_dims == d, loop_sizes, 1), axis=1, out=grown[:, 1:])
                self._extent[d] = np.minimum(grown, size, out=grown)

    def steps(self, d: int, position: Ints) -> Ints:
        """Temporal steps of dimension `d` inside `position` [..., n], [..., n]; no more than its size."""
        if d not in self._extent:
            return np.ones(1, dtype=np.int64)
        return self._extent[d][self.rows, position]

    def inside(self, row: int, d: int, position: int) -> int:
        """Temporal steps of dimension `d` inside `position` of one nest."""
        return int(self._extent[d][row, position]) if d in self._extent else 1

    def loops_of(self, row: int, d: int, position: int = 0) -> list[int]:
        """Trips of the loops of one nest over dimension `d` outside `position`, inner to outer, absent ones left out."""
        dims, trips = self.loop_dims[row, position:].tolist(), self.loop_sizes[row, position:].tolist()
        return [n for name, n in zip(dims, trips, strict=True) if name == d and n > 1]

    def tiles(self, operand: Operand, span: tuple[int, ...]) -> Floats:
        """Largest tile in words of one instance of a memory spanning these axes, after 0..l loops, [n, l + 1]."""
        follows = dependence(operand, self.nest.dims.transposed)
        inside = self.passes.inside(span)
        tile = np.ones((self.count, self.depth + 1))
        for d in follows.plain:
            if d in self._extent:
                if (inside[:, d] == 1).all():
                    tile *= self._extent[d]
                else:
                    tile *= np.minimum(self._extent[d] * inside[self.which, d, None], self.nest.sizes[d])
        if follows.windowed:
            for axis, o, k in zip(self.nest.axes, (OY, OX), (FY, FX), strict=True):
                if axis.outputs > 1 or axis.taps > 1:
                    tile *= self._held(axis, o, k, inside)
        return tile

    def place(self, tiles: Floats, capacities: Floats) -> Ints:
        """Loops inside which the tile [n, l + 1] still fits `capacities` [k] words, [k, n]; -1 if it never does."""
        position: Ints = np.count_nonzero(tiles[None] <= capacities[:, None, None], axis=2) - 1
        return position

    def moved(self, operand: Operand, position: Ints, span: tuple[int, ...]) -> Floats:
        """Words that enter (or, for outputs, leave) all instances of a memory spanning these axes, [..., n].

        `position` [..., n] is where the tile changes; for the parent side of a transfer pass the child's position with the
        parent's `span`, which merges what several children share.
        """
        follows = dependence(operand, self.nest.dims.transposed)
        words = np.full(position.shape, float(prod(self.nest.sizes[d] for d in follows.plain)))
        for d in follows.repeated:
            if d in self._extent:
                table = self.passes.copies(d, span)
                words *= table[self.which * table_width(self.nest.sizes[d]) + self.steps(d, position)]
        if follows.windowed:
            for which, axis in enumerate(self.nest.axes):
                if axis.outputs > 1 or axis.taps > 1 or axis.pad > 0:
                    o, k = (OY, OX)[which], (FY, FX)[which]
                    words *= self.passes.windows(which, span, self.which, self.steps(o, position), self.steps(k, position))
        return words

    def fresh(self, operand: Operand, span: tuple[int, ...]) -> Floats:
        """Partial sums that start from nothing at a memory: one per output and instance, [n]."""
        per_nest: Floats = self.passes.fresh(operand, span)[self.which]
        return per_nest

    def cycles(self) -> Floats:
        """Temporal iterations of the whole nest: each keeps the array busy for one MAC per PE, [n]."""
        passes = -(-np.array(self.nest.sizes) // self.whole)
        total: Floats = passes.prod(axis=1).astype(np.float64)[self.which]
        return total

    def _held(self, axis: Axis, o: int, k: int, inside: Ints) -> Ints:
        """Distinct rows of the largest tile after each number of loops, [n, l + 1]."""
        held = []
        for d, size in ((o, axis.outputs), (k, axis.taps)):
            served = inside[self.which, d, None]
            extent = self._extent.get(d)
            held.append(np.minimum(served, size) if extent is None else np.minimum(extent * served, size))
            spread = np.where(inside[:, d] == self.whole[:, d], 1, self.whole[:, d])
            held.append(spread[self.which, None])
        outputs, output_step, taps, tap_step = held
        return rows_held(axis, outputs, taps, output_step, tap_step)


__all__ = ["Floats", "Ints", "Nests"]
