"""Mapping search: from a layer shape and a profile to its mapping table.

Two stages keep it short. Stage one evaluates what the PEs hold (unroll, tile sizes, order of operands) and keeps the
best few for every pair of storable widths and every stationary operand. Stage two (`select`) splits the survivors at
the buffer, places them for several amounts of free space and keeps the best mapping of every scenario.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.candidates import PERMUTATIONS, inner_tiles, nests, split_outer
from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import OPERANDS, OX, OY, C, G, K, Nest
from hwc_onnx.cost.scenarios import Scenarios, scenarios
from hwc_onnx.cost.select import select
from hwc_onnx.cost.unrolls import unroll_candidates


@dataclass(frozen=True)
class Effort:
    """How wide the search is: unrolls kept, sizes tried per tile dimension, nests kept per case, buffer splits."""

    unrolls_per_kind: int = 5
    unrolls: int = 16
    tile_steps: int = 4
    survivors: int = 2
    shares: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)
    free_steps: int = 5


def search(nest: Nest, hierarchy: Hierarchy, effort: Effort | None = None) -> MappingTable:
    """The mapping table of a layer shape (deterministic)."""
    effort = effort or Effort()
    cases = scenarios(hierarchy)
    unrolls, which, tiles, order = _stage_one(nest, hierarchy, cases, effort)
    dims, sizes, which = _both_sweeps(nest, unrolls, which, tiles, order)
    choices = [
        (rows, channels, outermost)
        for rows, channels, outermost in itertools.product(effort.shares, effort.shares, (0, 1))
        if not (outermost and (rows == 1.0 or channels == 1.0))
    ]
    dims, sizes = split_outer(dims, sizes, choices)
    which = np.tile(which, len(choices))
    keep = _distinct(which, dims, sizes)
    counter = Counter(hierarchy, nest, unrolls, which[keep], dims[keep], sizes[keep])
    return select(counter, cases, effort.free_steps, dims[keep], sizes[keep])


def _stage_one(nest: Nest, hierarchy: Hierarchy, cases: Scenarios, effort: Effort) -> tuple[Ints, Ints, Ints, Ints]:
    """Best nests for what happens below the buffers: (unrolls, which of them, tiles, orders)."""
    unrolls = unroll_candidates(nest.sizes, hierarchy.profile, effort.unrolls_per_kind, effort.unrolls)
    limits = _limits(nest, hierarchy)
    trips = -(-np.array(nest.sizes) // unrolls.prod(axis=1))
    parts = []
    for i, unroll in enumerate(unrolls):
        tiles = inner_tiles(tuple(trips[i].tolist()), limits, effort.tile_steps)
        tiles = tiles[_worth(tiles, unroll.prod(axis=0), hierarchy)]
        parts.append((np.full(len(tiles), i), tiles))
    which, tiles = (np.concatenate(column) for column in zip(*parts, strict=True))
    dims, sizes = nests(trips[which], tiles, list(range(PERMUTATIONS)))
    order = np.repeat(np.arange(PERMUTATIONS), len(which))
    which, source = np.tile(which, PERMUTATIONS), np.tile(np.arange(len(which)), PERMUTATIONS)
    keep = _distinct(which, dims, sizes)
    which, dims, sizes, order, source = which[keep], dims[keep], sizes[keep], order[keep], source[keep]
    total = _inner_energy(Counter(hierarchy, nest, unrolls, which, dims, sizes), cases)
    chosen: set[int] = set()
    for block in range(3):
        members = np.nonzero(np.isin(order, _orders_ending(block)))[0]
        few = min(effort.survivors, members.size)
        if few:
            best = np.argpartition(total[:, members], few - 1, axis=1)[:, :few]
            chosen.update(members[best[np.isfinite(np.take_along_axis(total[:, members], best, axis=1))]].tolist())
    picked = np.array(sorted(chosen), dtype=np.int64)
    return unrolls, which[picked], tiles[source[picked]], order[picked]


def _both_sweeps(nest: Nest, unrolls: Ints, which: Ints, tiles: Ints, order: Ints) -> tuple[Ints, Ints, Ints]:
    """Loops of the chosen nests with both orders of the outer sweeps: (dimensions, sizes, which unroll)."""
    trips = -(-np.array(nest.sizes) // unrolls.prod(axis=1))[which]
    made = []
    for number in range(2 * PERMUTATIONS):
        rows = np.nonzero(order == number % PERMUTATIONS)[0]
        if rows.size:
            made.append((*nests(trips[rows], tiles[rows], [number]), which[rows]))
    dims, sizes, which = (np.concatenate(column) for column in zip(*made, strict=True))
    return dims, sizes, which


def _inner_energy(counter: Counter, cases: Scenarios) -> Floats:
    """Energy of what happens below the buffers, [pairs of widths, n]; infinite where nothing fits."""
    hierarchy = counter.hierarchy
    energy: dict[Operand, list[Floats]] = {}
    for operand in OPERANDS:
        inner = [b.child for b in hierarchy.boundaries if b.operand == operand and b.child >= 0]
        inner = [memory for memory in inner if not is_buffer(hierarchy, memory)]
        capacities = [[capacity(hierarchy, m, operand, bits) for m in inner] for bits in cases.widths]
        options = counter.options(operand, np.array(capacities).reshape(len(cases.widths), len(inner)))
        energy[operand] = [
            np.where(options.valid[i], options.columns[i] @ cases.energies[operand, bits, 1.0, False][: options.columns.shape[2]], np.inf)
            for i, bits in enumerate(cases.widths)
        ]  # fmt: skip
    return np.stack([
        energy["I"][a] + energy["W"][w] + energy["O"][a] + cases.psum(bits_a, bits_w, counter)
        for (a, bits_a), (w, bits_w) in itertools.product(enumerate(cases.widths), enumerate(cases.widths))
    ])  # fmt: skip


def capacity(hierarchy: Hierarchy, memory: int, operand: Operand, bits: int) -> float:
    """Words of `operand` at `bits` that `memory` could hold alone."""
    return hierarchy.capacity_bits(memory) // hierarchy.room_bits(memory, operand, bits)


def is_buffer(hierarchy: Hierarchy, memory: int) -> bool:
    """Whether stage one leaves this memory out: it serves the whole array and is not an accumulator."""
    return bool(hierarchy.spans[memory]) and not hierarchy.profile.memories[memory].accumulator


def _limits(nest: Nest, hierarchy: Hierarchy) -> dict[int, int]:
    """Largest useful tile of K, OX and C, from the innermost memories at the narrowest width."""
    limits: dict[int, int] = {}
    follow: tuple[tuple[Operand, tuple[int, ...]], ...] = (("O", (K, OX)), ("W", (C,)), ("I", (OX, C)))
    for operand, dims in follow:
        index = next(i for i, m in enumerate(hierarchy.profile.memories) if operand in m.operands)
        if not is_buffer(hierarchy, index):
            words = int(capacity(hierarchy, index, operand, 2))
            for d in dims:
                limits[d] = max(limits.get(d, 1), words)
    return {d: min(limit, nest.sizes[d]) for d, limit in limits.items()}


def _worth(tiles: Ints, unroll: Ints, hierarchy: Hierarchy) -> NDArray[np.bool_]:
    """Tiles whose outputs fit the partial-sum memory, if outputs have one below the buffers."""
    index = next(i for i, m in enumerate(hierarchy.profile.memories) if "O" in m.operands)
    outputs = tiles[:, :3].prod(axis=1)
    if is_buffer(hierarchy, index):
        return np.ones(len(tiles), dtype=bool)
    spread = int(unroll[[G, K, OY, OX]].prod()) if hierarchy.spans[index] else 1
    fits: NDArray[np.bool_] = outputs * spread <= capacity(hierarchy, index, "O", 2)
    fits |= outputs == 1
    return fits


def _orders_ending(block: int) -> list[int]:
    return [i for i, order in enumerate(itertools.permutations(range(3))) if order[2] == block]


def _distinct(which: Ints, dims: Ints, sizes: Ints) -> Ints:
    """Index of one of each group of nests that differ only in absent loops.

    A nest is folded into one 64-bit number, absent loops skipped; two different nests meet with a chance of about
    2^-40 at these sizes, and then one candidate of thousands is not looked at.
    """
    odd = np.uint64(0xD6E8FEB86659FD93)
    code = (which.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for column in range(dims.shape[1]):
        present = sizes[:, column] > 1
        if present.any():
            mark = (sizes[:, column] * 8 + dims[:, column]).astype(np.uint64)
            mixed = (code ^ mark) * odd
            mixed ^= mixed >> np.uint64(31)
            code = np.where(present, mixed, code)
    kept: Ints = np.sort(np.unique(code, return_index=True)[1])
    return kept
