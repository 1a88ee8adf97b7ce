"""From nests and capacities to the columns of a mapping table: placements, words moved, room needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Ints, Nests
from hwc_onnx.cost.hierarchy import Boundary, Hierarchy
from hwc_onnx.cost.operands import FX, FY, C, Nest

FULL_SPILL = 1e-9
"""Words below which partial sums count as never coming back (sums of float64 products are exact to this)."""


@dataclass(frozen=True)
class Options:
    """Placements of one operand in its memories: `k` choices of capacities for each of `n` nests.

    `columns` [k, n, c] are that operand's columns of the table, `needs` [k, n, m] the words held in each of its
    memories (nothing for finished outputs passing through), `valid` [k, n] is False where a memory cannot hold one
    tile.
    """

    columns: Floats
    needs: Floats
    valid: NDArray[np.bool_]


class Counter:
    """Counts words for many nests of one layer on one array (arguments as for `Nests`)."""

    def __init__(
        self, hierarchy: Hierarchy, nest: Nest, unrolls: Ints, which: Ints, loop_dims: Ints, loop_sizes: Ints
    ) -> None:
        self.hierarchy = hierarchy
        self.nests = Nests(nest, unrolls, which, loop_dims, loop_sizes)

    def options(self, operand: Operand, capacities: Floats) -> Options:
        """Placements for each row of `capacities` [k, m]: words that its memories hold, inner to outer.

        Outer memories may be left out; then only what passes below them is counted.
        """
        count, depth = capacities.shape
        boundaries = [b for b in self.hierarchy.boundaries if b.operand == operand]
        edge = boundaries[0].child < 0
        position = np.zeros((count, self.nests.count), dtype=np.int64)
        columns = [self._transfer(boundaries[0], position[:1]).repeat(count, axis=0)] if edge else []
        needs = []
        valid = np.ones(position.shape, dtype=bool)
        for level, boundary in enumerate((boundaries[1:] if edge else boundaries)[:depth]):
            tiles = self.nests.tiles(operand, self.hierarchy.spans[boundary.child])
            placed = self.nests.place(tiles, capacities[:, level])
            valid &= placed >= 0
            position = np.maximum(placed, position)
            need = tiles[self.nests.rows, position]
            if operand == "O" and columns and not self.hierarchy.profile.memories[boundary.child].accumulator:
                returning = columns[-1][..., 1] - columns[-1][..., 2] > FULL_SPILL
                need = np.where(returning, need, 0.0)
            needs.append(need)
            columns.append(self._transfer(boundary, position))
        empty = np.zeros((*position.shape, 0))
        return Options(
            np.concatenate(columns, axis=2) if columns else empty, np.stack(needs, axis=2) if needs else empty, valid
        )

    def reduction(self) -> Floats:
        """Products that one PE can add before it touches its partial sum: its share of C, FY and FX, [n]."""
        steps = np.ones(len(self.nests.whole))
        for d in (C, FY, FX):
            steps *= -(-self.nests.nest.sizes[d] // self.nests.whole[:, d])
        per_nest: Floats = steps[self.nests.which]
        return per_nest

    def _transfer(self, boundary: Boundary, position: Ints) -> Floats:
        """Words on the child's and the parent's side (and fresh partial sums at the parent) of a boundary, [..., n, 2 or 3]."""
        operand, spans = boundary.operand, self.hierarchy.spans
        child = spans[boundary.child] if boundary.child >= 0 else ()
        parent = spans[boundary.parent]
        down = self.nests.moved(operand, position, child)
        sides = [down, down if child == parent else self.nests.moved(operand, position, parent)]
        if operand == "O":
            sides.append(np.broadcast_to(self.nests.fresh(operand, parent), down.shape))
        return np.stack(sides, axis=-1)
