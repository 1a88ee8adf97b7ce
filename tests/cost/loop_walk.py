"""Access counts by walking every loop and looking at every element: slow, short, and independent of the formulas.

One memory instance holds the elements of a tile; the tile changes when a loop index that the operand depends on
changes outside the placement, and then every element of the new tile is moved. What several instances ask of one
parent at the same moment is moved once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hwc_onnx.graph.loop_dims import LoopDims

NAMES = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
FOLLOWED = {"W": "G K C FY FX", "O": "B G K OY OX", "I": "B G C OY OX FY FX"}
FOLLOWED_TRANSPOSED = {"W": "G K C FY FX", "O": "B G K OY OX FY FX", "I": "B G C OY OX"}


@dataclass(frozen=True)
class Mapping:
    """Loops (dimension, trips) inner to outer, and PEs per dimension inside and outside of a memory instance."""

    loops: tuple[tuple[str, int], ...]
    inside: dict[str, int]
    outside: dict[str, int]


def elements(operand: str, dims: LoopDims, point: dict[str, int]) -> tuple[int, ...] | None:
    """The element that an iteration touches, None for padding."""
    windowed = "O" if dims.transposed else "I"
    if operand == "W":
        return tuple(point[d] for d in ("G", "K", "C", "FY", "FX"))
    channel = point["K"] if operand == "O" else point["C"]
    if operand != windowed:
        return (point["B"], point["G"], channel, point["OY"], point["OX"])
    y = point["OY"] * dims.stride[0] + point["FY"] * dims.dilation[0] - dims.pads[0]
    x = point["OX"] * dims.stride[1] + point["FX"] * dims.dilation[1] - dims.pads[1]
    rows, columns = dims.input_size
    if dims.transposed:
        rows = (dims.OY - 1) * dims.stride[0] + (dims.FY - 1) * dims.dilation[0] + 1 - dims.pads[0] - dims.pads[2]
        columns = (dims.OX - 1) * dims.stride[1] + (dims.FX - 1) * dims.dilation[1] + 1 - dims.pads[1] - dims.pads[3]
    return (point["B"], point["G"], channel, y, x) if 0 <= y < rows and 0 <= x < columns else None


def walk(operand: str, dims: LoopDims, mapping: Mapping, position: int) -> tuple[int, int, int]:
    """(words into all instances, words asked of one parent of all, largest tile) for a placement at `position`."""
    sizes = {d: getattr(dims, d) for d in NAMES}
    followed = (FOLLOWED_TRANSPOSED if dims.transposed else FOLLOWED)[operand].split()
    whole = {d: mapping.inside[d] * mapping.outside[d] for d in NAMES}
    inner, outer = mapping.loops[:position], mapping.loops[position:]
    entered = asked = largest = 0
    held: tuple[int, ...] | None = None
    for outer_index in itertools.product(*(range(trips) for _, trips in reversed(outer))):
        outer_index = outer_index[::-1]
        key = tuple(i for i, (d, _) in zip(outer_index, outer, strict=True) if d in followed)
        moment: set[tuple[int, ...]] = set()
        arrived = 0
        active = False
        for instance in itertools.product(*(range(mapping.outside[d]) for d in NAMES)):
            tile: set[tuple[int, ...]] = set()
            for inner_index in itertools.product(*(range(trips) for _, trips in inner)):
                step, radix = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, 1)
                for (d, trips), i in zip((*inner, *outer), (*inner_index, *outer_index), strict=True):
                    step[d] += i * radix[d]
                    radix[d] *= trips
                for lane in itertools.product(*(range(mapping.inside[d]) for d in NAMES)):
                    point = {
                        d: step[d] * whole[d] + instance[n] * mapping.inside[d] + lane[n] for n, d in enumerate(NAMES)
                    }
                    if all(point[d] < sizes[d] for d in NAMES):
                        active = True
                        touched = elements(operand, dims, point)
                        if touched is not None:
                            tile.add(touched)
            arrived += len(tile)
            largest = max(largest, len(tile))
            moment |= tile
        if active and key != held:
            entered += arrived
            asked += len(moment)
            held = key
    return entered, asked, largest
