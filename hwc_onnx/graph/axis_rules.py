"""How channels travel through each operator: the links and locks that each one adds to the axis graph.

An operator without a rule locks every axis it touches, so an unknown operator can never lose channels by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from hwc_onnx.graph.axis_graph import AxisGraph, Merge
from hwc_onnx.graph.layer_graph import Node
from hwc_onnx.graph.op_kinds import BINARY, POOLS, REDUCTIONS, SOFTMAXES, UNARY


def title(node: Node) -> str:
    """How messages name a node."""
    return f"{node.op_type} `{node.name or node.key}`"


def add_node(graph: AxisGraph, node: Node) -> None:
    """Add the links and locks of one node."""
    known = all(name in graph.shapes for name in (*node.inputs, *node.outputs) if name)
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and known):
        rule = _product
    if not known or rule is None:
        graph.lock_all(node, f"reach {title(node)}, through which channels cannot be followed")
        return
    rule(graph, node)


def _convolution(graph: AxisGraph, node: Node) -> None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    layer = graph.layers.get(node.key)
    if layer is None or layer.weight is None:
        graph.lock_all(node, f"reach {title(node)}, whose weights are not constant")
        return
    graph.link((x, 0), (y, 0))
    for axis in range(2, len(graph.shapes[x])):
        graph.lock((x, axis), f"become positions in {title(node)}")
        graph.lock((y, axis), f"become positions in {title(node)}")
    dims = layer.loop_dims
    channels_in, channels_out = graph.shapes[x][1], graph.shapes[y][1]
    if len(node.inputs) > 2 and node.inputs[2]:
        graph.link((y, 1), (node.inputs[2], 0))
    if dims.G == 1:
        graph.link((x, 1), (weight, layer.input_axis))
        graph.link((y, 1), (weight, layer.output_axis))
        return
    if dims.transposed:
        reason = f"belong to the {dims.G} groups of {title(node)}, which must stay equally large"
        for place in ((x, 1), (y, 1), (weight, 0)):
            graph.lock(place, reason)
        return
    # whole groups can go: all inputs, all outputs and all rows of one group stand for one channel, so that a depthwise
    # layer (one input per group) ties its outputs to its inputs one by one
    inputs = np.repeat(np.arange(dims.G), channels_in // dims.G)
    outputs = np.repeat(np.arange(dims.G), channels_out // dims.G)
    first = np.searchsorted(inputs, np.arange(dims.G))
    graph.link((x, 1), (x, 1), first[inputs])
    graph.link((x, 1), (y, 1), first[outputs])
    graph.link((y, 1), (weight, 0))


def _product(graph: AxisGraph, node: Node) -> None:
    first, second, y = node.inputs[0], node.inputs[1], node.outputs[0]
    a, b, c = (len(graph.shapes[name]) for name in (first, second, y))
    flip_a = node.op_type == "Gemm" and bool(node.attributes.get("transA", 0))
    flip_b = node.op_type == "Gemm" and bool(node.attributes.get("transB", 0))
    inner_a = a - 1 if not flip_a else a - 2
    inner_b = max(b - 2, 0) if not flip_b else b - 1
    graph.link((first, inner_a), (second, inner_b))
    if a > 1:
        graph.link((first, a - 2 if not flip_a else a - 1), (y, c - 2 if b > 1 else c - 1))
    if b > 1:
        graph.link((second, b - 1 if not flip_b else b - 2), (y, c - 1))
    for offset in range(3, c + 1):
        for name, rank in ((first, a), (second, b)):
            if rank >= offset and graph.shapes[name][rank - offset] == graph.shapes[y][c - offset]:
                graph.link((name, rank - offset), (y, c - offset))
    if len(node.inputs) > 2 and node.inputs[2]:
        _align(graph, node.inputs[2], y)


def _align(graph: AxisGraph, operand: str, result: str) -> None:
    """Broadcasting: the operand's axes line up with the result's from the right; axes of size 1 carry no channels."""
    small, large = graph.shapes[operand], graph.shapes[result]
    shift = len(large) - len(small)
    for axis, size in enumerate(small):
        if size == large[axis + shift]:
            graph.link((operand, axis), (result, axis + shift))


def _elementwise(graph: AxisGraph, node: Node) -> None:
    for name in node.inputs:
        if name:
            _align(graph, name, node.outputs[0])


def _unary(graph: AxisGraph, node: Node) -> None:
    _align(graph, node.inputs[0], node.outputs[0])


def _batch_norm(graph: AxisGraph, node: Node) -> None:
    _unary(graph, node)
    for name in node.inputs[1:]:
        graph.link((node.inputs[0], 1), (name, 0))


def _keep_channels(graph: AxisGraph, node: Node) -> None:
    """Pooling, resizing, padding: axes whose size changes are positions, axes 0 and 1 go through."""
    x = node.inputs[0]
    for y in node.outputs:
        if y:
            for axis in range(len(graph.shapes[x])):
                if axis < 2 and graph.shapes[x][axis] == graph.shapes[y][axis]:
                    graph.link((x, axis), (y, axis))
                else:
                    graph.lock((x, axis), f"become positions in {title(node)}")
                    graph.lock((y, axis), f"become positions in {title(node)}")


def _pad(graph: AxisGraph, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    for axis in range(len(graph.shapes[x])):
        if graph.shapes[x][axis] == graph.shapes[y][axis]:
            graph.link((x, axis), (y, axis))
        else:
            graph.lock((x, axis), f"are padded by {title(node)}")
            graph.lock((y, axis), f"are padded by {title(node)}")


def _reduce(graph: AxisGraph, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    rank = len(graph.shapes[x])
    axes = graph.integers(node, 1, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        graph.lock_all(node, f"reach {title(node)}, whose axes are computed")
        return
    gone = {axis % rank for axis in axes} if axes else set(range(rank))
    kept = bool(node.attributes.get("keepdims", 1))
    position = 0
    for axis in range(rank):
        if axis in gone:
            graph.lock((x, axis), f"are averaged or summed by {title(node)}")
            position += int(kept)
        else:
            graph.link((x, axis), (y, position))
            position += 1


def _transpose(graph: AxisGraph, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    rank = len(graph.shapes[x])
    order = node.attributes.get("perm", tuple(reversed(range(rank))))
    for position, axis in enumerate(order):
        graph.link((x, axis), (y, position))


def _reshape(graph: AxisGraph, node: Node) -> None:
    """Split both shapes into runs of axes with equal products; a single axis may be merged with others, not split.

    Merging axes (d1 .. dn) into one: output position p belongs to the position of axis i in p's mixed-radix digits.
    """
    x, y = node.inputs[0], node.outputs[0]
    before, after = graph.shapes[x], graph.shapes[y]
    if 0 in before or 0 in after:
        graph.lock_all(node, f"reach {title(node)}, whose result is empty")
        return
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(left), j + len(right)
        size, other = prod(before[axis] for axis in left), prod(after[axis] for axis in right)
        while size != other:
            if size < other:
                left.append(i)
                size, i = size * before[i], i + 1
            else:
                right.append(j)
                other, j = other * after[j], j + 1
        _reshape_run(graph, node, left, right)


def _reshape_run(graph: AxisGraph, node: Node, left: list[int], right: list[int]) -> None:
    x, y = node.inputs[0], node.outputs[0]
    before, after = graph.shapes[x], graph.shapes[y]
    wide_left = [axis for axis in left if before[axis] > 1]
    wide_right = [axis for axis in right if after[axis] > 1]
    if len(wide_left) == 1 and len(wide_right) == 1:
        if (wide_left[0] == 0) != (wide_right[0] == 0):
            # at batch 1 a batch axis is invisible here, so channels that move to or from axis 0 may be mixed with it
            graph.lock((x, wide_left[0]), f"are mixed with the batch by {title(node)}")
            graph.lock((y, wide_right[0]), f"are mixed with the batch by {title(node)}")
            return
        graph.link((x, wide_left[0]), (y, wide_right[0]))
    elif len(wide_right) == 1 and wide_right[0] != 0:
        target = wide_right[0]
        digits = np.unravel_index(np.arange(after[target]), [before[axis] for axis in wide_left])
        graph.merges.append(Merge(x, tuple(wide_left), (y, target), tuple(digits), title(node)))
    else:
        for axis in wide_left:
            graph.lock((x, axis), f"are split into several axes by {title(node)}")
        for axis in wide_right:
            graph.lock((y, axis), f"are split into several axes by {title(node)}")


def _concat(graph: AxisGraph, node: Node) -> None:
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


def _cut(graph: AxisGraph, node: Node) -> None:
    """Slice and Split: axes that keep their size go through; removing channels would move the cut, so others lock."""
    x = node.inputs[0]
    for y in node.outputs:
        for axis in range(len(graph.shapes[x])):
            if graph.shapes[x][axis] == graph.shapes[y][axis]:
                graph.link((x, axis), (y, axis))
            else:
                graph.lock((x, axis), f"are cut into parts by {title(node)}")
                graph.lock((y, axis), f"are cut into parts by {title(node)}")


def _gather(graph: AxisGraph, node: Node) -> None:
    x, index, y = node.inputs[0], node.inputs[1], node.outputs[0]
    rank, width = len(graph.shapes[x]), len(graph.shapes[index])
    taken = int(node.attributes.get("axis", 0)) % rank
    graph.lock((x, taken), f"are picked by {title(node)}")
    for axis in range(rank):
        if axis != taken:
            graph.link((x, axis), (y, axis if axis < taken else axis - 1 + width))
    for offset in range(width):
        graph.lock((y, taken + offset), f"are picked by {title(node)}")


def _softmax(graph: AxisGraph, node: Node) -> None:
    _unary(graph, node)
    rank = len(graph.shapes[node.inputs[0]])
    axis = int(node.attributes.get("axis", -1)) % rank
    graph.lock((node.inputs[0], axis), f"are compared with each other by {title(node)}")


def _layer_norm(graph: AxisGraph, node: Node) -> None:
    _unary(graph, node)
    rank = len(graph.shapes[node.inputs[0]])
    for axis in range(int(node.attributes.get("axis", -1)) % rank, rank):
        graph.lock((node.inputs[0], axis), f"are normalized together by {title(node)}")


def _instance_norm(graph: AxisGraph, node: Node) -> None:
    _batch_norm(graph, node)
    for axis in range(2, len(graph.shapes[node.inputs[0]])):
        graph.lock((node.inputs[0], axis), f"are normalized together by {title(node)}")


def _nothing(graph: AxisGraph, node: Node) -> None:
    """Shape arithmetic: the sizes it yields are checked where they are used."""


RULES: Mapping[str, Callable[[AxisGraph, Node], None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(BINARY, _elementwise),
    **dict.fromkeys(POOLS, _keep_channels),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(SOFTMAXES, _softmax),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Slice", "Split"), _cut),
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Dropout": _unary,
    "Gather": _gather,
    "Identity": _unary,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "Pad": _pad,
    "Resize": _keep_channels,
    "Shape": _nothing,
    "Transpose": _transpose,
    "Upsample": _keep_channels,
}
"""Operator -> rule. Anything else locks what it touches."""
