"""From nests and capacities to the columns of a mapping table: placements, words moved, room needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Ints, Nests
from hwc_onnx.cost.exact import counted_twice, moved
from hwc_onnx.cost.hierarchy import Boundary, Hierarchy
from hwc_onnx.cost.operands import FX, FY, C, Nest
from hwc_onnx.cost.passes import Passes

FULL_SPILL = 1e-9
"""Words below which partial sums count as never coming back (sums of float64 products are exact to this)."""


@dataclass(frozen=True)
class Options:
    """Placements of one operand in its memories: `k` choices of capacities for each of `n` nests.

    `columns` [k, n, c] are that operand's columns of the table, `needs` [k, n, m] the words held in each of its
    memories (nothing for finished outputs passing through), `valid` [k, n] is False where a memory cannot hold one
    tile. `positions` [k, n, m] are the loops inside each memory's tile.
    """

    columns: Floats
    needs: Floats
    valid: NDArray[np.bool_]
    positions: Ints

    def take(self, numbers: list[int]) -> Options:
        """Some of the choices."""
        return Options(self.columns[numbers], self.needs[numbers], self.valid[numbers], self.positions[numbers])


class Counter:
    """Counts words for many nests of one layer on one array (arguments as for `Nests`)."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        nest: Nest,
        unrolls: Ints,
        which: Ints,
        loop_dims: Ints,
        loop_sizes: Ints,
        passes: Passes | None = None,
    ) -> None:
        self.hierarchy = hierarchy
        self.nests = Nests(nest, unrolls, which, loop_dims, loop_sizes, passes)

    def options(self, operand: Operand, capacities: Floats) -> Options:
        """Placements for each row of `capacities` [k, m]: words that its memories hold, inner to outer.

        Outer memories may be left out; then only what passes below them is counted.
        """
        count, depth = capacities.shape
        boundaries = [b for b in self.hierarchy.boundaries if b.operand == operand]
        edge = boundaries[0].child < 0
        nothing = np.zeros((count, self.nests.count), dtype=np.int64)
        columns = [self._transfer(boundaries[0], nothing[:1]).repeat(count, axis=0)] if edge else []
        held = (boundaries[1:] if edge else boundaries)[:depth]
        tiles = [self.nests.tiles(operand, self.hierarchy.spans[boundary.child]) for boundary in held]
        placed = [self.nests.place(tile, capacities[:, level]) for level, tile in enumerate(tiles)]
        valid = np.all([position >= 0 for position in placed], axis=0) if placed else np.ones(nothing.shape, dtype=bool)
        # a memory holds all that the memories inside it hold, so they take no more than it has room for;
        # results that are finished inside only pass through it
        for level in range(len(placed) - 1, 0, -1):
            fewer = np.minimum(placed[level - 1], placed[level])
            if operand == "O" and not self.hierarchy.profile.memories[held[level].child].accumulator:
                words = self._transfer(held[level - 1], np.maximum(placed[level - 1], 0))
                fewer = np.where(words[..., 1] - words[..., 2] > FULL_SPILL, fewer, placed[level - 1])
                placed[level] = np.maximum(placed[level], fewer)
            placed[level - 1] = fewer
        needs, positions = [], []
        for boundary, tile, found in zip(held, tiles, placed, strict=True):
            position = np.maximum(found, 0)
            needs.append(self._need(operand, boundary, tile[self.nests.rows, position], columns))
            positions.append(position)
            columns.append(self._transfer(boundary, position))
        empty = np.zeros((*nothing.shape, 0))
        return Options(
            np.concatenate(columns, axis=2) if columns else empty,
            np.stack(needs, axis=2) if needs else empty,
            valid,
            np.stack(positions, axis=2) if positions else empty.astype(np.int64),
        )

    def placed(self, operand: Operand, inside: Ints) -> tuple[Floats, Floats]:
        """Columns [n, c] and words held [n, m] of one operand whose placement is given, nothing counted twice.

        `inside` [n, m] are the loops inside the tile of each of its memories, inner to outer.
        """
        boundaries = [b for b in self.hierarchy.boundaries if b.operand == operand]
        edge = boundaries[0].child < 0
        nothing = np.zeros(self.nests.count, dtype=np.int64)
        columns = [self._transfer(boundaries[0], nothing)] if edge else []
        needs = []
        for level, boundary in enumerate(boundaries[1:] if edge else boundaries):
            tiles = self.nests.tiles(operand, self.hierarchy.spans[boundary.child])
            needs.append(self._need(operand, boundary, tiles[self.nests.rows, inside[:, level]], columns))
            columns.append(self._transfer(boundary, inside[:, level]))
        found = np.concatenate(columns, axis=1)
        for row in range(self.nests.count):
            found[row] = self.exact(operand, row, found[row], inside[row])
        return found, np.stack(needs, axis=1) if needs else np.zeros((self.nests.count, 0))

    def _need(self, operand: Operand, boundary: Boundary, need: Floats, columns: list[Floats]) -> Floats:
        """Room of a tile; results that pass a memory for good need none."""
        if operand == "O" and columns and not self.hierarchy.profile.memories[boundary.child].accumulator:
            return np.where(columns[-1][..., 1] - columns[-1][..., 2] > FULL_SPILL, need, 0.0)
        return need

    def exact(self, operand: Operand, row: int, columns: Floats, positions: Ints) -> Floats:
        """The columns [c] of one nest with nothing counted twice; `positions` [m] are the loops inside each memory's tile."""
        found, at = columns.copy(), 0
        boundaries = [b for b in self.hierarchy.boundaries if b.operand == operand]
        inside = ([0] if boundaries[0].child < 0 else []) + positions.tolist()
        for boundary, position in zip(boundaries, inside, strict=True):
            # at the edge of the array nothing holds a word: every iteration moves it
            if boundary.child >= 0 and counted_twice(self.nests, operand, row, position):
                child = self.hierarchy.spans[boundary.child]
                found[at] = moved(self.nests, operand, row, position, child)
                found[at + 1] = moved(self.nests, operand, row, position, self.hierarchy.spans[boundary.parent])
                if operand == "O":
                    returns = found[at + 1] - found[at + 2] > FULL_SPILL
                    found[at + 3] = found[at] - self.nests.fresh(operand, child)[row] if returns else 0.0
            at += 4 if operand == "O" else 2
        return found

    def reduction(self) -> Floats:
        """Products that one PE can add before it touches its partial sum: its share of C, FY and FX, [n]."""
        steps = np.ones(len(self.nests.whole))
        for d in (C, FY, FX):
            steps *= -(-self.nests.nest.sizes[d] // self.nests.whole[:, d])
        per_nest: Floats = steps[self.nests.which]
        return per_nest

    def _transfer(self, boundary: Boundary, position: Ints) -> Floats:
        """Words on the child's and the parent's side of a boundary, of partial sums also the fresh and the
        returning ones, [..., n, 2 or 4]."""
        operand, spans = boundary.operand, self.hierarchy.spans
        child = spans[boundary.child] if boundary.child >= 0 else ()
        parent = spans[boundary.parent]
        down = self.nests.moved(operand, position, child)
        sides = [down, down if child == parent else self.nests.moved(operand, position, parent)]
        if operand == "O":
            sides.append(np.broadcast_to(self.nests.fresh(operand, parent), down.shape))
            # a sum that comes back goes to every memory that adds to it; where none comes back, each adds from nothing
            back = np.where(sides[1] - sides[2] > FULL_SPILL, down - self.nests.fresh(operand, child), 0.0)
            sides.append(back)
        return np.stack(sides, axis=-1)
