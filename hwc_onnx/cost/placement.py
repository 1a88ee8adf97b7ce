"""Where in a loop nest each memory's tile is held, read back from the words that a mapping counts.

A tile is held inside `loops` of the temporal loops, counted from the innermost. Several depths can move the same words;
the shown one needs the least room, with the loops that do not change it counted as outside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Nests
from hwc_onnx.cost.counting import FULL_SPILL
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import OPERANDS, Nest


class Held(NamedTuple):
    """One instance of `memory` holds `words` of `operand` while the innermost `loops` temporal loops run."""

    memory: str
    operand: Operand
    loops: int
    words: int


def tiles(table: MappingTable, row: int, nest: Nest, hierarchy: Hierarchy) -> list[Held]:
    """The tile of each memory but the outermost, by operand and from the PEs outwards.

    Finished outputs that only pass through a memory have no tile there.
    """
    nests = Nests(
        nest,
        table.unroll[row][None],
        np.zeros(1, dtype=np.int64),
        table.loop_dims[row][None],
        table.loop_sizes[row][None],
    )
    found = []
    for operand in OPERANDS:
        found += _of_operand(operand, table.columns[row], nests, hierarchy)
    return found


def _of_operand(operand: Operand, columns: Floats, nests: Nests, hierarchy: Hierarchy) -> list[Held]:
    depths = np.arange(nests.depth + 1)[:, None]
    first = hierarchy.slice_of(operand).start
    width = 3 if operand == "O" else 2
    chosen: list[tuple[int, Floats, int]] = []
    inner = 0
    for number, boundary in enumerate(b for b in hierarchy.boundaries if b.operand == operand):
        at = first + number * width
        if boundary.child < 0:
            continue
        memory = hierarchy.profile.memories[boundary.child]
        below = columns[at - width : at]
        if operand == "O" and number and not memory.accumulator and below[1] - below[2] <= FULL_SPILL:
            continue
        spans = hierarchy.spans
        same = np.isclose(nests.moved(operand, depths, spans[boundary.child])[:, 0], columns[at], rtol=1e-9)
        same &= np.isclose(nests.moved(operand, depths, spans[boundary.parent])[:, 0], columns[at + 1], rtol=1e-9)
        fitting = [int(depth) for depth in np.nonzero(same)[0] if depth >= inner]
        if fitting:
            inner = fitting[0]
            chosen.append((boundary.child, nests.tiles(operand, spans[boundary.child])[0], inner))
    found: list[Held] = []
    outside = nests.depth
    for child, sizes, depth in reversed(chosen):
        while depth < outside and sizes[depth + 1] == sizes[depth]:
            depth += 1
        outside = depth
        found.append(Held(hierarchy.profile.memories[child].name, operand, depth, int(sizes[depth])))
    return found[::-1]
