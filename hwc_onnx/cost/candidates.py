"""Temporal loop nests worth evaluating.

Each operand ignores one block of dimensions: inputs ignore {K}, weights {OY, OX}, outputs {C, FY, FX}. An operand
stays put while its block turns, so the order of the blocks decides who is stationary inside whom. A nest is

    tile loops of the three blocks, in one of 6 orders   (what the PEs hold)
    the rest of the blocks, the last one first           (what the array sweeps)
    outer loops over OY and K                            (what the buffer cannot hold)
    G, B

Kernel loops are whole: all inside the tile, FX inside and FY outside, or all outside.
"""

from __future__ import annotations

import itertools
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.operands import FX, FY, OX, OY, B, C, G, K
from hwc_onnx.cost.unrolls import balanced

Ints = NDArray[np.int64]
BLOCKS = ((K,), (OX, OY), (FX, FY, C))
TILE_DIMS = (K, OX, OY, FX, FY, C)
PERMUTATIONS = 6
NEAR = 1.5


def inner_tiles(trips: tuple[int, ...], limits: dict[int, int], steps: int) -> Ints:
    """Tile sizes of TILE_DIMS worth trying, [n, 6].

    Args:
        trips: temporal trips of each dimension, [8].
        limits: largest useful tile of a dimension.
        steps: how many sizes to spread between 1 and the limit for each of K, OX and C.
    """
    columns = []
    for d in (K, OX, OY, C):
        spread = 2 if d == OY else steps
        columns.append(spread_sizes(trips[d], limits.get(d, trips[d]), spread))
    kernels = sorted({(1, 1), (trips[FX], 1), (trips[FX], trips[FY])})
    rows = [
        (k, ox, oy, fx, fy, c)
        for k, ox, oy, c in itertools.product(*columns)
        if oy == 1 or ox == trips[OX]
        for fx, fy in kernels
    ]
    return np.array(rows, dtype=np.int64)


def spread_sizes(trips: int, limit: int, steps: int) -> list[int]:
    """At most `steps` tile sizes between 1 and `limit`, evenly spread in the logarithm.

    A divisor of `trips` near the wanted size is taken before a size that leaves a remainder.
    """
    top = max(1, min(trips, limit))
    if top == 1 or steps == 1:
        return [1]
    sizes = {1}
    for i in range(1, steps):
        wanted = top ** (i / (steps - 1))
        divisors = [n for n in range(max(1, ceil(wanted / NEAR)), min(top, int(wanted * NEAR)) + 1) if trips % n == 0]
        sizes.add(
            min(divisors, key=lambda n: abs(log(n / wanted))) if divisors else min(top, balanced(trips, round(wanted)))
        )
    return sorted(sizes)


def nests(trips: Ints, tiles: Ints, orders: list[int]) -> tuple[Ints, Ints]:
    """Loops with nothing split at the buffer: (dimensions, sizes), each [orders * n, 14], inner to outer.

    Args:
        trips: [n, 8] temporal trips.
        tiles: [n, 6] tile sizes of TILE_DIMS.
        orders: which orders to make (0..11), see `loop_order`.
    """
    rest = -(-trips[:, TILE_DIMS] // tiles)
    parts = np.concatenate([tiles, rest, trips[:, (G, B)]], axis=1)
    dims, sizes = [], []
    for order in orders:
        inner, swept = loop_order(order)
        columns = [TILE_DIMS.index(d) for d in inner] + [6 + TILE_DIMS.index(d) for d in swept] + [12, 13]
        sizes.append(parts[:, columns])
        dims.append(np.broadcast_to(np.array([*inner, *swept, G, B]), (len(trips), 14)))
    return np.concatenate(dims), np.concatenate(sizes)


def loop_order(order: int) -> tuple[list[int], list[int]]:
    """Dimensions of the tile loops and of the swept loops.

    Orders 0..5 are the permutations of the tile blocks; 6..11 the same with the two outer swept blocks exchanged.
    """
    swap, permutation = divmod(order, 6)
    blocks = list(itertools.permutations(BLOCKS))[permutation]
    inner = [d for block in blocks for d in block]
    rest = [blocks[0], blocks[1]] if swap else [blocks[1], blocks[0]]
    swept = [d for block in (blocks[2], *rest) for d in block]
    return inner, swept


def split_outer(dims: Ints, sizes: Ints, choices: list[tuple[float, float, int]]) -> tuple[Ints, Ints]:
    """Move part of the swept loops of OY and K outwards.

    Args:
        dims: [n, 14] from `nests`; sizes likewise.
        choices: share of the OY and of the K trips that stays inside (1 keeps all), and which of both is outermost.

    Returns:
        Dimensions and sizes [n * choices, 16], two outer loops before G and B.
    """
    made_dims, made_sizes = [], []
    rows = np.arange(len(dims))
    places = {d: 6 + (dims[:, 6:12] == d).argmax(axis=1) for d in (OY, K)}
    for share_y, share_k, outermost in choices:
        inside = sizes.copy()
        outer = {}
        for d, share in ((OY, share_y), (K, share_k)):
            trips = sizes[rows, places[d]]
            kept = np.maximum(1, np.ceil(trips * share).astype(np.int64))
            passes = -(-trips // kept)
            inside[rows, places[d]], outer[d] = -(-trips // passes), passes
        first, second = (OY, K) if outermost else (K, OY)
        extra_dims = np.broadcast_to(np.array([first, second]), (len(dims), 2))
        extra_sizes = np.stack([outer[first], outer[second]], axis=1)
        made_dims.append(np.concatenate([dims[:, :12], extra_dims, dims[:, 12:]], axis=1))
        made_sizes.append(np.concatenate([inside[:, :12], extra_sizes, inside[:, 12:]], axis=1))
    return np.concatenate(made_dims), np.concatenate(made_sizes)
