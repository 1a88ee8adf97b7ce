"""Accesses of a mapping as ZigZag counts them: the two rules in which it differs from hwc-onnx (docs/energy-model.md).

Each changes a count only where the rules differ; everywhere else the counts are compared as they are.
"""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

from hwc_onnx.cost import LayerMapping, LoopDims
from hwc_onnx.cost.types import NodeCost
from hwc_onnx.cost.window import Axis, Cut, rows_moved

sys.path.insert(0, str(Path(__file__).parent / "reference"))
from architectures import Architecture

Counts = dict[tuple[str, str], float]


def as_zigzag_counts(cost: NodeCost, dims: LoopDims, mapping: LayerMapping, architecture: Architecture) -> Counts:
    """Words read and written by memory and operand, with both rules."""
    found = with_first_loads(cost, architecture)
    register, *outside = architecture.holding("I")
    if register.scope == "pe":
        again = rows_fetched_again(dims, mapping, register.name)
        found[outside[0].name, "I"] += (again - 1) * cost.accesses[outside[0].name]["I"]["read"]
    return found


def rows_fetched_again(dims: LoopDims, mapping: LayerMapping, register: str) -> float:
    """How often ZigZag fetches a row for the input registers that hwc-onnx fetches once.

    Units along the outputs and the taps of a window share rows. ZigZag shares what they need at the same moment, and not
    what overlaps because a register holds several rows; hwc-onnx fetches the distinct rows of what all of them hold.
    """
    held = mapping.temporal[len(mapping.temporal) - mapping.inside.get("I", {}).get(register, 0) :]
    ratio = 1.0
    for axis, (out, tap) in enumerate((("OY", "FY"), ("OX", "FX"))):
        size = {dim: getattr(dims, dim) for dim in (out, tap)}
        units = {dim: prod(unroll.get(dim, 1) for unroll in mapping.spatial.values()) for dim in size}
        steps = {dim: prod(trips for loop, trips in held if loop == dim) for dim in size}
        tiles = [size[dim] / (units[dim] * steps[dim]) for dim in size]
        if any(count % 1 for count in tiles):
            # ragged tiles are fractions there
            continue
        geometry = dims.stride[axis], dims.dilation[axis]
        theirs = prod(tiles) * distinct_rows(units[out], units[tap], *geometry) * distinct_rows(steps[out], steps[tap], *geometry)
        whole = Axis(size[out], size[tap], *geometry, 0, _span(size[out], size[tap], *geometry))
        ours = rows_moved(whole, *(Cut(steps[dim], units[dim], units[dim]) for dim in (out, tap)))
        ratio *= theirs / ours
    return ratio


def distinct_rows(outputs: int, taps: int, stride: int, dilation: int) -> int:
    """Rows under `outputs` windows of `taps` rows."""
    return len({o * stride + t * dilation for o in range(outputs) for t in range(taps)})


def _span(outputs: int, taps: int, stride: int, dilation: int) -> int:
    return (outputs - 1) * stride + (taps - 1) * dilation + 1


def with_first_loads(cost: NodeCost, architecture: Architecture) -> Counts:
    """Words read and written by memory and operand, with ZigZag's rule for sums that start from nothing.

    ZigZag also loads those from the memory that gives sums back, into every register that adds to them; hwc-onnx starts
    them in place (docs/energy-model.md). Where no sum comes back, the tools agree.
    """
    found = {
        (memory, operand): counts["read"] + counts["write"]
        for memory, operands in cost.accesses.items()
        for operand, counts in operands.items()
    }
    outer = [memory.name for memory in architecture.holding("O")]
    chain = cost.accesses
    outputs = chain[outer[-1]]["O"]["write"] - chain[outer[-1]]["O"]["read"]
    reads_inside = float(cost.macs) if architecture.holding("O")[0].scope == "pe" else 0.0
    for inner, parent in zip([None, *outer[:-1]], outer, strict=True):
        into = chain[parent]["O"]
        drained = outputs if parent != outer[-1] else 0.0
        back = into["read"] - drained - (reads_inside if parent == outer[0] and reads_inside else 0.0)
        if parent == outer[0] and reads_inside:
            continue
        if back > 0.5:
            found[parent, "O"] += outputs
            if inner == outer[0] and reads_inside:
                leaving = chain[inner]["O"]["read"] - reads_inside
                returned = chain[inner]["O"]["write"] - reads_inside
                found[inner, "O"] += leaving - returned
            elif inner is not None:
                found[inner, "O"] += outputs
    return found
