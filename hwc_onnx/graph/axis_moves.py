"""How channels travel through operators that move, cut and join elements: positions are followed one by one."""

from __future__ import annotations

from math import prod

import numpy as np

from hwc_onnx.graph.axis_graph import AxisGraph, Positions
from hwc_onnx.graph.layer_graph import Node
from hwc_onnx.graph.regroup import Regroup, common_factors, runs


def title(node: Node) -> str:
    """How messages name a node."""
    return f"{node.op_type} `{node.name or node.key}`"


def reshape(graph: AxisGraph, node: Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: axes that stay are linked, others are regrouped."""
    x, y = node.inputs[0], node.outputs[0]
    before, after = graph.shapes[x], graph.shapes[y]
    if 0 in before or 0 in after:
        graph.lock_all(node, f"reach {title(node)}, whose result is empty")
        return
    if prod(before) != prod(after):
        # a branch that never runs at these sizes
        graph.lock_all(node, f"reach {title(node)}, which does not fit the sizes of this input")
        return
    if node.op_type == "Reshape" and graph.integers(node, 1, "shape") is None:
        _lock(graph, node, range(len(before)), range(len(after)), f"reach {title(node)}, whose sizes are computed")
        return
    for left, right in runs(before, after):
        wide = [(axis, before[axis]) for axis in left if before[axis] > 1]
        wide_after = [(axis, after[axis]) for axis in right if after[axis] > 1]
        if len(wide) == 1 and len(wide_after) == 1:
            if (wide[0][0] == 0) == (wide_after[0][0] == 0):
                graph.link((x, wide[0][0]), (y, wide_after[0][0]))
            else:
                # at batch 1 a batch axis is invisible, so channels that move to or from axis 0 may be mixed with it
                reason = f"are mixed with the batch by {title(node)}"
                _lock(graph, node, [wide[0][0]], [wide_after[0][0]], reason)
            continue
        found = common_factors(wide, wide_after)
        if found is None:
            reason = f"are split into several axes by {title(node)}"
            _lock(graph, node, [axis for axis, _ in wide], [axis for axis, _ in wide_after], reason)
        elif wide:
            graph.regroups.append(Regroup(f"{node.key}/{left[0]}", title(node), x, y, *found))
            for tensor, axes in ((x, wide), (y, wide_after)):
                for axis, _ in axes:
                    graph.vertices(tensor, axis)


def _lock(graph: AxisGraph, node: Node, left: list[int] | range, right: list[int] | range, reason: str) -> None:
    for axis in left:
        graph.lock((node.inputs[0], axis), reason)
    for axis in right:
        graph.lock((node.outputs[0], axis), reason)


def transpose(graph: AxisGraph, node: Node) -> None:
    """Each axis of the result is one of the operand's."""
    x, y = node.inputs[0], node.outputs[0]
    order = node.attributes.get("perm", tuple(reversed(range(len(graph.shapes[x])))))
    for position, axis in enumerate(order):
        graph.link((x, axis), (y, position))


def concat(graph: AxisGraph, node: Node) -> None:
    """Positions of the operands follow one another along one axis."""
    y = node.outputs[0]
    rank = len(graph.shapes[y])
    joined = int(node.attributes["axis"]) % rank
    start = 0
    for name in node.inputs:
        size = graph.shapes[name][joined]
        graph.link((name, joined), (y, joined), None, np.arange(start, start + size))
        start += size
        for axis in range(rank):
            if axis != joined:
                graph.link((name, axis), (y, axis))


def split(graph: AxisGraph, node: Node) -> None:
    """The results hold successive stretches of one axis."""
    x = node.inputs[0]
    cut = int(node.attributes.get("axis", 0)) % len(graph.shapes[x])
    start = 0
    for y in node.outputs:
        if y:
            size = graph.shapes[y][cut]
            _pick(graph, x, y, cut, np.arange(start, start + size))
            start += size


def slice_(graph: AxisGraph, node: Node) -> None:
    """A stretch of some axes. One with a step, or with computed bounds, is followed by nobody."""
    x, y = node.inputs[0], node.outputs[0]
    shape = graph.shapes[x]
    bounds = slice_bounds(graph, node)
    if bounds is None:
        graph.lock_all(node, f"are cut by {title(node)}, whose bounds are computed")
        return
    for axis in range(len(shape)):
        positions = np.arange(shape[axis])[bounds.get(axis, slice(None))]
        if len(positions) != graph.shapes[y][axis] or bounds.get(axis, slice(None)).step not in (None, 1):
            reason = f"are cut with a step by {title(node)}"
            graph.lock((x, axis), reason)
            graph.lock((y, axis), reason)
        else:
            graph.link((x, axis), (y, axis), positions)


def slice_bounds(graph: AxisGraph, node: Node) -> dict[int, slice] | None:
    """What a Slice takes of each axis that it names; None where that is computed."""
    rank = len(graph.shapes[node.inputs[0]])
    starts, ends = graph.integers(node, 1, "starts"), graph.integers(node, 2, "ends")
    axes, steps = graph.integers(node, 3, "axes"), graph.integers(node, 4, "steps")
    absent = [len(node.inputs) <= place or not node.inputs[place] for place in (3, 4)]
    if starts is None or ends is None or (axes is None and not absent[0]) or (steps is None and not absent[1]):
        return None
    named = axes or tuple(range(len(starts)))
    return {
        axis % rank: slice(start, end, step)
        for axis, start, end, step in zip(named, starts, ends, steps or (1,) * len(starts), strict=True)
    }


def gather(graph: AxisGraph, node: Node) -> None:
    """Positions picked by a constant list; a single one, or a computed list, holds the axis in place."""
    x, index, y = node.inputs[0], node.inputs[1], node.outputs[0]
    rank, width = len(graph.shapes[x]), len(graph.shapes[index])
    taken = int(node.attributes.get("axis", 0)) % rank
    places = graph.constants.get(index)
    if width == 1 and places is not None:
        size = graph.shapes[x][taken]
        _pick(graph, x, y, taken, np.where(places < 0, places + size, places).astype(np.int64))
        return
    graph.lock((x, taken), f"are picked by {title(node)}")
    for axis in range(rank):
        if axis != taken:
            graph.link((x, axis), (y, axis if axis < taken else axis - 1 + width))
    for offset in range(width):
        graph.lock((y, taken + offset), f"are picked by {title(node)}")


def _pick(graph: AxisGraph, x: str, y: str, along: int, positions: Positions) -> None:
    for axis in range(len(graph.shapes[x])):
        graph.link((x, axis), (y, axis), positions if axis == along else None)


def expand(graph: AxisGraph, node: Node) -> None:
    """Repeats axes of size 1; those repeated are new, the others go through.

    Where sizes are joined from several, only a 1 says nothing of the channels; a whole constant is written anew.
    """
    x, y = node.inputs[0], node.outputs[0]
    before, after = graph.shapes[x], graph.shapes[y]
    constant = graph.constants.get(node.inputs[1]) is not None
    sizes = graph.sizes(node.inputs[1])
    for place, size in enumerate(after):
        axis = place - (len(after) - len(before))
        entry = sizes[place - (len(after) - len(sizes))] if place >= len(after) - len(sizes) else 1
        if not constant and size > 1 and entry != 1:
            reason = f"are repeated by {title(node)}, whose sizes are computed"
            graph.lock((y, place), reason)
            if axis >= 0:
                graph.lock((x, axis), reason)
        elif axis >= 0 and before[axis] == size:
            graph.link((x, axis), (y, place))


def tile(graph: AxisGraph, node: Node) -> None:
    """Repeats whole axes: each position occurs once in every copy."""
    x, y = node.inputs[0], node.outputs[0]
    for axis, size in enumerate(graph.shapes[x]):
        if size > 1 or graph.shapes[y][axis] == 1:
            graph.link((x, axis), (y, axis), np.arange(graph.shapes[y][axis]) % max(size, 1))
        else:
            graph.lock((y, axis), f"are copies made by {title(node)}")


def depth_to_space(graph: AxisGraph, node: Node) -> None:
    """Blocks of channels become positions: each channel of the image owns blocksize^2 channels of the depth.

    Mode DCR (and SpaceToDepth): channel = block * image channels + image channel; CRD: the other way round.
    """
    deep, image = node.inputs[0], node.outputs[0]
    if node.op_type == "SpaceToDepth":
        deep, image = image, deep
    channels, depth = graph.shapes[image][1], graph.shapes[deep][1]
    place = np.arange(depth)
    owner = place // (depth // channels) if node.attributes.get("mode", "DCR") == "CRD" else place % channels
    graph.link((deep, 0), (image, 0))
    graph.link((deep, 1), (image, 1), None, owner)
    for tensor in (deep, image):
        for axis in range(2, len(graph.shapes[tensor])):
            graph.lock((tensor, axis), f"become positions in {title(node)}")
