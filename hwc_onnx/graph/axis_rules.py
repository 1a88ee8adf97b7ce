"""How channels travel through each operator: the links and locks that each one adds to the axis graph.

An operator without a rule locks every axis it touches, so an unknown operator can never lose channels by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hwc_onnx.graph.axis_graph import AxisGraph
from hwc_onnx.graph.axis_mixers import (
    across_channels,
    align,
    einsum,
    group_norm,
    instance_norm,
    layer_norm,
    recurrent,
    reduce,
    sample,
    softmax,
)
from hwc_onnx.graph.axis_moves import (
    concat,
    depth_to_space,
    expand,
    gather,
    reshape,
    slice_,
    split,
    tile,
    title,
    transpose,
)
from hwc_onnx.graph.layer_graph import Node
from hwc_onnx.graph.op_kinds import BINARY, POOLS, REDUCTIONS, SOFTMAXES, UNARY


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
    if len(node.inputs) > 2 and node.inputs[2]:
        graph.link((y, 1), (node.inputs[2], 0))
    if dims.G == 1:
        graph.link((x, 1), (weight, layer.input_axis))
        graph.link((y, 1), (weight, layer.output_axis))
        return
    _grouped(graph, node, dims.transposed)


def _grouped(graph: AxisGraph, node: Node, transposed: bool) -> None:
    """Groups must stay equally large: whole ones can go, or the same places in each; first what leaves more channels.

    Whole groups: all inputs, all outputs and all rows of one group stand for one channel, so that a depthwise layer (one
    input per group) ties its outputs to its inputs one by one.
    """
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    inputs, outputs = graph.shapes[x][1], graph.shapes[y][1]
    groups = graph.layers[node.key].loop_dims.G
    of_input, of_output = inputs // groups, outputs // groups
    whole, other = ((x, 1), (y, 1)) if transposed else ((y, 1), (x, 1))
    # the weight's first axis goes over all groups, its second one over the places in each
    graph.link(whole, (weight, 0))
    second = bool(graph.choose(node.key, (x, 1), 2 if of_input > 1 else 1))
    if second == (groups >= of_input):
        for axis, size, places in (((x, 1), inputs, of_input), ((y, 1), outputs, of_output)):
            graph.link(axis, axis, np.arange(size) % places)
        places = graph.shapes[weight][1]
        graph.link(other, (weight, 1), np.arange(places))
        return
    first = np.arange(groups) * of_input
    graph.link((x, 1), (x, 1), np.repeat(first, of_input))
    graph.link((x, 1), (y, 1), np.repeat(first, of_output))


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
        align(graph, node.inputs[2], y)


def _elementwise(graph: AxisGraph, node: Node) -> None:
    for name in node.inputs:
        if name:
            align(graph, name, node.outputs[0])


def _unary(graph: AxisGraph, node: Node) -> None:
    align(graph, node.inputs[0], node.outputs[0])


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
    """What is put in front and behind is new; constants can be fewer, copies of what is there cannot."""
    x, y = node.inputs[0], node.outputs[0]
    pads = graph.integers(node, 1, "pads")
    rank = len(graph.shapes[x])
    plain = pads is not None and len(node.inputs) < 4 and node.attributes.get("mode", "constant") == "constant"
    for axis in range(rank):
        size = graph.shapes[x][axis]
        if size == graph.shapes[y][axis]:
            graph.link((x, axis), (y, axis))
        elif plain and pads is not None and min(pads[axis], pads[axis + rank]) >= 0:
            graph.link((x, axis), (y, axis), None, np.arange(pads[axis], pads[axis] + size))
        else:
            graph.lock((x, axis), f"are padded by {title(node)}")
            graph.lock((y, axis), f"are padded by {title(node)}")


def _nothing(graph: AxisGraph, node: Node) -> None:
    """Shape arithmetic: the sizes it yields are checked where they are used."""


RULES: Mapping[str, Callable[[AxisGraph, Node], None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(("Not", "IsNaN", "IsInf", "CastLike"), _unary),
    **dict.fromkeys(BINARY, _elementwise),
    **dict.fromkeys(
        ("Where", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Mod"), _elementwise
    ),
    **dict.fromkeys(POOLS, _keep_channels),
    **dict.fromkeys(REDUCTIONS, reduce),
    **dict.fromkeys(SOFTMAXES, softmax),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), depth_to_space),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
    **dict.fromkeys(("LRN", "LpNormalization", "MeanVarianceNormalization"), across_channels),
    **dict.fromkeys(("GridSample", "RoiAlign"), sample),
    "BatchNormalization": _batch_norm,
    "Concat": concat,
    "Dropout": _unary,
    "Einsum": einsum,
    "Expand": expand,
    "Gather": gather,
    "GroupNormalization": group_norm,
    "Identity": _unary,
    "InstanceNormalization": instance_norm,
    "Pad": _pad,
    "Resize": _keep_channels,
    "Shape": _nothing,
    "Slice": slice_,
    "Split": split,
    "Tile": tile,
    "Transpose": transpose,
    "Upsample": _keep_channels,
}
"""Operator -> rule. Anything else locks what it touches."""
