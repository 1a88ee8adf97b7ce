"""Rows of a sliding window, counted exactly: strides, dilation, padding, tiles and PEs included.

Row of output o and tap k: o * stride + k * dilation - pad. A tile is a set of outputs times a set of taps; what it
needs are the *distinct* rows inside the tensor. With loop index = (temporal) * unroll + (PE), outputs of one tile lie
`unroll` apart, so counting sets is safer than a formula; results are cached because layers share geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NEVER = 1 << 40
"""More rounds than any walk has."""


@dataclass(frozen=True)
class Axis:
    """One axis of a window: outputs, taps, stride, dilation, leading pad and rows of the windowed tensor."""

    outputs: int
    taps: int
    stride: int
    dilation: int
    pad: int
    size: int


@dataclass(frozen=True)
class Cut:
    """How outputs (or taps) are cut: `extent` temporal steps, `inside` PEs under one memory, `whole` PEs in all."""

    extent: int
    inside: int
    whole: int

    def tiles(self, length: int) -> NDArray[np.int64]:
        """Tile number of each index 0..length-1; the same number means held together in one memory instance."""
        index = np.arange(length)
        step, lane = np.divmod(index, self.whole)
        tile: NDArray[np.int64] = (step // self.extent) * -(-self.whole // self.inside) + lane // self.inside
        return tile


@lru_cache(maxsize=1 << 17)
def rows_moved(axis: Axis, outputs: Cut, taps: Cut) -> int:
    """Distinct in-range rows of each tile, added over all tiles and memory instances.

    Outputs and taps are the same thing here: indices of one side times a step. One side is walked, round by round; the
    indices of the other side times the PEs of the walked one are the points where walks set off: point q reaches the
    rows q, q + stride, q + 2 stride... in rounds 0, 1, 2... So the work does not grow with the rounds of that side.
    """
    sides = [Side.of(axis.outputs, axis.stride, outputs), Side.of(axis.taps, axis.dilation, taps)]
    walked, other = sides if sides[0].lanes * sides[1].length <= sides[1].lanes * sides[0].length else sides[::-1]
    groups, rest = divmod(walked.lanes, walked.inside)
    total = _rows_of_groups(axis, walked, other, np.arange(groups) * walked.inside, walked.inside)
    if rest:  # the last instance serves fewer PEs
        total += _rows_of_groups(axis, walked, other, np.array([walked.lanes - rest]), rest)
    return total


class Side(NamedTuple):
    """Outputs or taps of a window, cut: index = round * lanes + lane.

    Attributes:
        length: how many there are.
        step: rows from one to the next.
        lanes: PEs that each take one index of a round.
        inside: how many of them share a memory instance.
        extent: rounds whose indices are held together.
    """

    length: int
    step: int
    lanes: int
    inside: int
    extent: int

    @classmethod
    def of(cls, length: int, step: int, cut: Cut) -> Side:
        """A side as it is cut; where one instance serves all PEs, its indices are walked one by one."""
        lanes, inside, extent = cut.whole, min(cut.inside, cut.whole), cut.extent
        if inside == lanes:
            lanes, inside, extent = 1, 1, extent * lanes
        elif lanes > length:  # the others are idle
            lanes, inside = length, min(inside, length)
        return cls(length, step, lanes, inside, min(extent, -(-length // lanes)))


def _rows_of_groups(axis: Axis, walked: Side, other: Side, first_lanes: Ints, inside: int) -> int:
    """`rows_moved` of the instances that serve `inside` lanes of the walked side from the `first_lanes` [g] on.

    All of them reach the same rows but for a shift, so points are compared with each other for one of them.
    """
    stride = walked.lanes * walked.step
    lane, point, gap = _points(walked.lanes, walked.step, inside, other)
    first = first_lanes[:, None]
    rounds = -(-(walked.length - lane - first) // walked.lanes)
    row = point + (first * walked.step - axis.pad)
    # rounds in which the row is inside the tensor; the first one may be behind the last one
    low = np.maximum(-(row // stride), 0)
    high = np.maximum(np.minimum(rounds, (axis.size - 1 - row) // stride + 1), low)
    # the row of a round was reached `gap` rounds before by another point, unless that was in an earlier tile
    gap = np.minimum(gap, walked.extent)
    bounds = np.stack([low, high])
    tile, within = np.divmod(bounds, walked.extent)
    before, after = (tile * gap + np.minimum(within, gap)).reshape(2, -1).sum(axis=1).tolist()
    return int(after - before)


@lru_cache(maxsize=64)
def _points(lanes: int, step: int, inside: int, other: Side) -> tuple[Ints, Ints, Ints]:
    """Where the walks of one instance with `inside` of `lanes` set off: lane, row and gap of each point, all [p].

    Points of the same tile and row are one, that of the first lane: its walk is the longest. The gap is after how many
    rounds a walk comes to where another one of the tile set off; `NEVER` where it does not.
    """
    lane = np.repeat(np.arange(inside), other.length)
    row = lane * step + np.tile(np.arange(other.length) * other.step, inside)
    place, track = np.divmod(row, lanes * step)
    tile = np.tile(Cut(other.extent, other.inside, other.lanes).tiles(other.length), inside)
    order = np.lexsort((place, track, tile))  # stable, so lanes stay in order
    place, tile, track = place[order], tile[order], track[order]
    ahead = np.where((tile[1:] == tile[:-1]) & (track[1:] == track[:-1]), place[1:] - place[:-1], NEVER)
    # the last of equal points has the gap, the first one the lane
    first, last = np.nonzero(np.append(1, ahead))[0], np.nonzero(np.append(ahead, 1))[0]
    return lane[order[first]], row[order[first]], np.append(ahead, NEVER)[last]


def rows_held(
    axis: Axis,
    outputs: NDArray[np.int64],
    taps: NDArray[np.int64],
    output_step: NDArray[np.int64] | int,
    tap_step: NDArray[np.int64] | int,
) -> NDArray[np.int64]:
    """Largest number of distinct rows of a tile of `outputs` x `taps`, whose indices lie the given steps apart.

    i a + j b with a, b coprime repeats exactly at (i + b, j - a), so p r pairs give p r - max(0, p - b) max(0, r - a)
    distinct rows. Padding is not subtracted (some tile of the interior has none), the tensor's size limits it.
    """
    stride, dilation = axis.stride * np.asarray(output_step), axis.dilation * np.asarray(tap_step)
    common = np.gcd(stride, dilation)
    shared = np.maximum(outputs - dilation // common, 0) * np.maximum(taps - stride // common, 0)
    held: NDArray[np.int64] = np.minimum(outputs * taps - shared, axis.size)
    return held
