"""Where in a loop nest each memory's tile is held: inside how many temporal loops, counted from the innermost."""

from __future__ import annotations

from typing import NamedTuple

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.mapping import MappingTable


class Held(NamedTuple):
    """One instance of `memory` holds `words` of `operand` while the innermost `loops` temporal loops run."""

    memory: str
    operand: Operand
    loops: int
    words: int


def tiles(table: MappingTable, row: int, hierarchy: Hierarchy) -> list[Held]:
    """The tile of each memory but the outermost, by operand and from the PEs outwards.

    Finished outputs that only pass through a memory have no tile there. Absent loops do not count.
    """
    found = []
    for (memory, operand), inside, words in zip(hierarchy.held, table.inside[row], table.needs[row], strict=True):
        loops = int((table.loop_sizes[row, :inside] > 1).sum())
        if words:
            found.append(Held(hierarchy.profile.memories[memory].name, operand, loops, int(words)))
    return found
