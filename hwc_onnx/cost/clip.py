"""Mappings of one layer shape used for a smaller one: no loop longer and no unroll wider than what there is to do.

A clipped mapping never moves more words than the mapping it comes from. So where a shape may also use those of the
next larger rounded one, losing channels cannot cost energy because the search happened to find less.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.neighbours import fitted
from hwc_onnx.cost.operands import DIMS, OPERANDS, Nest
from hwc_onnx.graph.loop_dims import LoopDims

LANES = 8
"""Channel counts are rounded up to a multiple of this for the larger shape."""


def rounded(dims: LoopDims) -> LoopDims:
    """The shape with its channel counts rounded up to whole lanes; counts of one stay one."""

    def up(count: int) -> int:
        return count if count == 1 else -(-count // LANES) * LANES

    return replace(dims, G=up(dims.G), K=up(dims.K), C=up(dims.C))


def clipped(table: MappingTable, nest: Nest, hierarchy: Hierarchy) -> MappingTable:
    """The mappings of `table`, which is of a shape at least as large, counted for `nest`; each keeps its placement."""
    sizes = np.array(nest.sizes)
    unrolls = table.unroll.copy()
    spread = np.ones((len(table), len(DIMS)), dtype=np.int64)
    for axis in range(unrolls.shape[1]):
        unrolls[:, axis] = np.minimum(unrolls[:, axis], -(-sizes // spread))
        spread *= unrolls[:, axis]
    trips = fitted(table.loop_dims, table.loop_sizes, -(-sizes // spread))
    return counted(nest, hierarchy, unrolls, table.loop_dims, trips, table.inside)


def counted(
    nest: Nest, hierarchy: Hierarchy, unrolls: np.ndarray, dims: np.ndarray, trips: np.ndarray, inside: np.ndarray
) -> MappingTable:  # fmt: skip
    """The table of given mappings: unrolls [n, axes, 8], loops [n, l] and placements [n, h] as of `Hierarchy.held`."""
    counter = Counter(hierarchy, nest, unrolls, np.arange(len(unrolls)), dims, trips)
    before = np.concatenate([[0], np.cumsum((trips > 1).any(axis=0))])
    inside = before[inside]
    columns, needs, at = [], [], 0
    for operand in OPERANDS:
        count = sum(1 for _, held in hierarchy.held if held == operand)
        moved, need = counter.placed(operand, inside[:, at : at + count])
        columns.append(moved)
        needs.append(need)
        at += count
    return MappingTable(
        np.concatenate(columns, axis=1), np.concatenate(needs, axis=1), inside, counter.nests.cycles(),
        counter.reduction(), unrolls, counter.nests.loop_dims, counter.nests.loop_sizes,
    )  # fmt: skip
