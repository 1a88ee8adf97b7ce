"""Temporal loop nests worth evaluating.

Each operand ignores one block of dimensions: inputs ignore {K}, weights {OX, OY}, outputs {FX, FY, C}; of a transposed
convolution, whose outputs are the window, inputs ignore {FX, FY, K} and outputs {C}. What an operand
costs at a memory depends on how far its own block has grown inside its placement, and what room it takes on how far
the two other blocks have. So for each order in which the operands' tiles in the PEs follow each other,

    a tile of what the first operand holds
    its block, as far as the two others' room allows    (the one free size)
    the second operand's block, as far as the third's room allows
    the third operand's block

and outside of the PEs, for each order of the blocks,

    one block, another, the third in full, the rest of the first and of the second; then G.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.operands import DIMS, FX, FY, OX, OY, B, C, G, K, Nest

Ints = NDArray[np.int64]

class Blocks(NamedTuple):
    """The dimensions that each operand ignores, in the order in which they grow, and those that all others go inside."""

    ignored: dict[str, tuple[int, ...]]
    last: tuple[int, ...]


def blocks_of(nest: Nest) -> Blocks:
    """The blocks of a layer; images of a batch are positions to the weights, a batch of one is no loop at all."""
    positions, last = ((OX, OY, B), (G,)) if nest.sizes[B] > 1 else ((OX, OY), (G, B))
    if nest.dims.transposed:
        return Blocks({"I": (FX, FY, K), "W": positions, "O": (C,)}, last)
    return Blocks({"I": (K,), "W": positions, "O": (FX, FY, C)}, last)


UNLIMITED = 1 << 40

SHARES = (1.0, 0.5, 0.75, 0.25, 0.34, 0.125, 0.6, 0.06, 0.03, 0.0)
"""Shares of the largest useful size to try for the free size, the more important ones first."""



class Loops(NamedTuple):
    """Nests, or their innermost loops: the unroll [n], dimensions [n, l] and trips [n, l], inner to outer."""

    which: Ints
    dims: Ints
    trips: Ints

    def take(self, rows: Ints) -> Loops:
        """Some of them."""
        return Loops(self.which[rows], self.dims[rows], self.trips[rows])


def joined(parts: Sequence[Loops]) -> Loops:
    """All nests of all parts, absent loops added."""
    length = max(part.dims.shape[1] for part in parts)
    dims = [np.pad(part.dims, ((0, 0), (0, length - part.dims.shape[1]))) for part in parts]
    trips = [np.pad(part.trips, ((0, 0), (0, length - part.trips.shape[1])), constant_values=1) for part in parts]
    return Loops(np.concatenate([part.which for part in parts]), np.concatenate(dims), np.concatenate(trips))


class Rooms(NamedTuple):
    """Words of each operand that fit the PEs' memories, [u] for each unroll."""

    I: Ints  # noqa: E741 - operands are called I, W and O everywhere
    W: Ints
    O: Ints  # noqa: E741


def inner_nests(nest: Nest, trips: Ints, rooms: Rooms, sizes: int) -> tuple[Loops, Loops]:
    """Loops inside the PEs for every unroll, alone and with all that is left in one block after the other outside.

    Args:
        nest: the layer.
        trips: [u, 8] temporal trips under each unroll.
        rooms: what the PEs hold.
        sizes: how many values to try for the one free size.
    """
    shares = np.array(SHARES[:sizes])[:, None]
    which = np.tile(np.arange(len(trips)), len(shares))
    trips_each, rooms_each = trips[which], Rooms(*(room[which] for room in rooms))
    blocks, last = blocks_of(nest)
    loops: list[list[Ints]] = []
    orders: list[tuple[int, ...]] = []
    for first, second, third in itertools.permutations("IWO"):
        order = blocks[second] + blocks[third] + blocks[first] + blocks[second]
        tail = blocks[third] + blocks[first] + blocks[second] + last
        for tile in _tiles(nest, trips, rooms, first):
            limit = _limit(nest, tile, first, (second, third), rooms)
            most = np.minimum(limit, -(-trips[:, blocks[first]] // tile[:, blocks[first]]).prod(axis=1))
            tile = tile[which]
            grown = _grow(blocks[first], trips_each, tile, (most * shares).reshape(-1).astype(np.int64))
            held = tile * grown
            more = _grow(blocks[second], trips_each, held, _limit(nest, held, second, (third,), rooms_each))
            left = -(-trips_each // (held * more))
            columns = (tile[:, blocks[second] + blocks[third]], grown[:, blocks[first]], more[:, blocks[second]])
            loops.append([np.concatenate(columns, axis=1), left[:, tail]])
            orders.append(order + tail)
    split = max(len(order) for order in orders) - len(DIMS)
    dims = np.concatenate([np.tile(_stretched(np.array(order)[None], split, 0), (len(which), 1)) for order in orders])
    counts = np.concatenate([_stretched(np.concatenate(parts, axis=1), split, 1) for parts in loops])
    which = np.tile(which, len(orders))
    return Loops(which, dims[:, :split], counts[:, :split]), Loops(which, dims, counts)


def _stretched(loops: Ints, split: int, absent: int) -> Ints:
    """Loops [n, l] with absent ones put before the last eight, so that those start at `split`."""
    inner, outer = loops[:, : -len(DIMS)], loops[:, -len(DIMS) :]
    middle = np.full((len(loops), split - inner.shape[1]), absent, dtype=np.int64)
    return np.concatenate([inner, middle, outer], axis=1)


def nothing_inside(unrolls: int) -> Loops:
    """No loops inside the PEs, for so many unrolls."""
    loops = np.zeros((unrolls, 0), dtype=np.int64)
    return Loops(np.arange(unrolls), loops, loops)


def remaining(prefix: Loops, trips: Ints) -> Ints:
    """Trips of each dimension left outside, [n, 8]."""
    left = trips[prefix.which].copy()
    for d in range(len(DIMS)):
        inside = np.where(prefix.dims == d, prefix.trips, 1).prod(axis=1)
        left[:, d] = -(-left[:, d] // inside)
    return left


def outer_nests(nest: Nest, prefix: Loops, trips: Ints, passes: tuple[int, ...]) -> Loops:
    """Every prefix with every arrangement of the loops outside the PEs, cut into `passes`."""
    blocks, last = blocks_of(nest)
    most = 2 * sum(map(len, blocks.values())) - min(map(len, blocks.values())) + len(last)
    left = remaining(prefix, trips)
    pairs = np.array(list(itertools.product(passes, passes)), dtype=np.int64)
    source = np.tile(np.arange(len(left)), len(pairs))
    cuts = np.repeat(pairs, len(left), axis=0)
    left, ones = left[source], np.ones((len(source), len(DIMS)), dtype=np.int64)
    rows, dims, counts = [], [], []
    for first, second, third in itertools.permutations("IWO"):
        rest, useful, columns = left, np.ones(len(source), dtype=bool), []
        for operand, cut in ((first, cuts[:, 0]), (second, cuts[:, 1])):
            block = blocks[operand]
            grown = _grow(block, left, ones, -(-left[:, block].prod(axis=1) // cut))
            rest = -(-rest // grown)
            useful &= (cut == 1) | (rest[:, block] > 1).any(axis=1)
            columns.append(grown[:, block])
        columns += [left[:, blocks[third]], rest[:, blocks[first]], rest[:, blocks[second]], left[:, last]]
        order = blocks[first] + blocks[second] + blocks[third] + blocks[first] + blocks[second] + last
        absent = most - len(order)
        columns.append(ones[:, :absent])
        keep = np.nonzero(useful)[0]
        rows.append(source[keep])
        dims.append(np.tile(np.array(order + (0,) * absent), (len(keep), 1)))
        counts.append(np.concatenate(columns, axis=1)[keep])
    chosen = np.concatenate(rows)
    return Loops(
        prefix.which[chosen],
        np.concatenate([prefix.dims[chosen], np.concatenate(dims)], axis=1),
        np.concatenate([prefix.trips[chosen], np.concatenate(counts)], axis=1),
    )


def _tiles(nest: Nest, trips: Ints, rooms: Rooms, first: str) -> list[Ints]:
    """Tiles [u, 8] of the operand that changes most often: a kernel row or not, and for a window a row of pixels or not."""
    ones = np.ones_like(trips)
    kernels = [ones]
    window, plain = ("O", "I") if nest.dims.transposed else ("I", "O")
    if first != plain:
        for whole in ((FX,), (FX, FY)):
            tile = ones.copy()
            tile[:, whole] = trips[:, whole]
            kernels.append(tile)
    tiles = list(kernels)
    if first == window:
        for tile in kernels:
            wide = tile * _grow((OX,), trips, tile, _limit(nest, tile, "W", ("I", "O"), rooms))
            tiles.append(wide)
            if nest.dims.transposed:
                tiles.append(tile * _square(nest, trips, tile, rooms.O))
    if first == plain:
        tiles = [ones]
    distinct = {tile.tobytes(): tile for tile in tiles}
    return list(distinct.values())


def _square(nest: Nest, trips: Ints, tile: Ints, room: Ints) -> Ints:
    """Growth [u, 8] of a tile's rows and columns alike, as far as the window of outputs fits: the least overlap.

    Overlapping sums of a transposed convolution return to the memory outside, so a long row of them is dear.
    """
    side = np.sqrt(room // np.maximum(1, tile[:, K] * tile[:, B]))
    grown = np.ones_like(trips)
    for axis, (o, k) in enumerate(((OY, FY), (OX, FX))):
        span = (tile[:, k] - 1) * nest.dims.dilation[axis] + 1
        most = np.maximum(1, ((side - span) // nest.dims.stride[axis] + 1).astype(np.int64))
        left = -(-trips[:, o] // tile[:, o])
        grown[:, o] = -(-left // -(-left // np.minimum(left, most)))
    return grown


def _limit(nest: Nest, tile: Ints, operand: str, others: tuple[str, ...], rooms: Rooms) -> Ints:
    """How far the block of `operand` can grow around `tile` [u, 8] while the tiles of `others` fit, [u]."""
    found: Ints = np.full(len(tile), UNLIMITED)
    for other in others:
        room: Ints = getattr(rooms, other)
        if other == ("O" if nest.dims.transposed else "I") and operand == "W":
            limit = _pixels(nest, tile, room)
        else:
            limit = room // np.maximum(1, _words(nest, tile, other))
        found = np.minimum(found, limit)
    return np.maximum(1, found)


def _words(nest: Nest, tile: Ints, operand: str) -> Ints:
    """Words of a tile, windows as wide as their span."""
    if operand == "W":
        words: Ints = tile[:, (K, C, FY, FX)].prod(axis=1)
        return words
    channels = tile[:, K if operand == "O" else C] * tile[:, B]
    if (operand == "O") == nest.dims.transposed:
        words = channels * _rows(nest, tile, 0) * _rows(nest, tile, 1)
    else:
        words = channels * tile[:, (OY, OX)].prod(axis=1)
    return words


def _rows(nest: Nest, tile: Ints, axis: int) -> Ints:
    """Rows of the window of a tile along one axis: all of the span, or only those used when there is one tap."""
    o, k = ((OY, FY), (OX, FX))[axis]
    stride, dilation = nest.dims.stride[axis], nest.dims.dilation[axis]
    span = (tile[:, o] - 1) * stride + (tile[:, k] - 1) * dilation + 1
    rows: Ints = np.minimum(span, tile[:, o] * tile[:, k])
    return rows


def _pixels(nest: Nest, tile: Ints, room: Ints) -> Ints:
    """How many times as many output columns have a window that still fits `room`."""
    channels = tile[:, K if nest.dims.transposed else C] * tile[:, B]
    per_column = np.maximum(1, channels * _rows(nest, tile, 0))
    columns = room // per_column
    stride, dilation = nest.dims.stride[1], nest.dims.dilation[1]
    span = (tile[:, FX] - 1) * dilation + 1
    wide = np.where(tile[:, FX] > 1, (columns - span) // stride + 1, columns)
    limit: Ints = wide // tile[:, OX]
    return limit


def _grow(block: tuple[int, ...], trips: Ints, held: Ints, limit: Ints) -> Ints:
    """Growth [u, 8] of a block's dimensions one after the other, to at most `limit` [u] in all; passes kept equal.

    A kernel dimension grows whole or not at all; the next dimension grows only when the one before it is whole.
    """
    grown = np.ones_like(trips)
    room = np.maximum(1, limit)
    for d in block:
        left = -(-trips[:, d] // held[:, d])
        most = np.minimum(left, room)
        size = -(-left // -(-left // most))
        if d in (FX, FY):
            size = np.where(size == left, left, 1)
        grown[:, d] = size
        room = np.where(size == left, room // size, room if d in (FX, FY) else 1)
    return grown
