"""From a node and the shapes around it to a `Layer` with its loop dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from hwc_onnx.graph.layer_graph import Layer, Node
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.op_kinds import GATES

Shape = tuple[int, ...]


def layer_of(node: Node, shapes: Mapping[str, Shape], constants: Mapping[str, Any], bias: str | None) -> Layer | None:
    """The layer a node is, or None (no layer kind, or its weight is neither constant nor a MatMul's second operand).

    `shapes` must hold every operand and the output; `bias` is the initializer added to the output, if any.
    """
    if any(name not in shapes for name in (*(name for name in node.inputs if name), node.outputs[0])):
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        if node.inputs[1] not in constants or len(shapes[node.inputs[0]]) < 3:
            return None
        transposed = node.op_type == "ConvTranspose"
        return _layer(node, shapes, (node.inputs[0],), node.inputs[1], bias, int(transposed), int(not transposed))
    if node.op_type == "Gemm":
        flipped = bool(node.attributes.get("transB", 0))
        if node.inputs[0] in constants:
            return None
        if node.inputs[1] in constants:
            return _layer(node, shapes, node.inputs[:1], node.inputs[1], bias, int(not flipped), int(flipped))
        return _layer(node, shapes, node.inputs[:2], None, bias, int(not flipped), int(flipped))
    if node.op_type in GATES:
        return _recurrent(node, shapes, constants)
    if node.op_type == "MatMul":
        left, right = node.inputs
        if left in constants and right in constants:
            return None
        if right in constants:
            rank = len(shapes[right])
            return _layer(node, shapes, (left,), right, bias, rank - 1, max(rank - 2, 0))
        if left in constants:
            rank = len(shapes[left])
            return _layer(node, shapes, (right,), left, bias, max(rank - 2, 0), rank - 1)
        rank = len(shapes[right])
        return _layer(node, shapes, (left, right), None, bias, rank - 1, max(rank - 2, 0))
    return None


def _layer(
    node: Node,
    shapes: Mapping[str, Shape],
    inputs: tuple[str, ...],
    weight: str | None,
    bias: str | None,
    output_axis: int,
    input_axis: int,
) -> Layer:
    weight_shape = shapes[weight if weight is not None else inputs[1]]
    return Layer(
        key=node.outputs[0],
        node_name=node.name,
        op_type=node.op_type,
        inputs=inputs,
        outputs=node.outputs,
        weight=weight,
        bias=bias,
        weight_shape=weight_shape,
        output_axis=output_axis,
        input_axis=input_axis,
        loop_dims=loop_dims_of(node, shapes[node.inputs[0]], shapes[node.inputs[1]], shapes[node.outputs[0]]),
    )


def _recurrent(node: Node, shapes: Mapping[str, Shape], constants: Mapping[str, Any]) -> Layer | None:
    """A recurrent layer with constant weights, time along the first axis."""
    x, weight, state = node.inputs[:3]
    if weight not in constants or state not in constants or node.attributes.get("layout", 0):
        return None
    found = _layer(node, shapes, (x,), weight, None, 1, 2)
    return replace(found, state_weight=state)


def loop_dims_of(node: Node, first: Shape, second: Shape, output: Shape) -> LoopDims:
    """Loop dimensions from the shapes of a layer's first and second operand (as the node lists them) and its output."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return _convolution(node, first, second, output)
    if node.op_type in GATES:
        # [x, h] times the matrices of all gates, at each step of time
        steps, batch, inputs = first
        directions, rows, _ = second
        return LoopDims(
            B=batch, K=directions * rows, C=inputs + rows // GATES[node.op_type], OY=steps, input_size=(steps, 1)
        )
    if node.op_type == "Gemm":
        rows = first[1] if node.attributes.get("transA", 0) else first[0]
        inner = second[1] if node.attributes.get("transB", 0) else second[0]
        return LoopDims(K=output[-1], C=inner, OY=rows, input_size=(rows, 1))
    return _matmul(first, second, output)


def _matmul(first: Shape, second: Shape, output: Shape) -> LoopDims:
    rows = first[-2] if len(first) > 1 else 1
    columns = second[-1] if len(second) > 1 else 1
    batches = prod(output[: -(int(len(first) > 1) + int(len(second) > 1)) or None])
    inner = first[-1]
    if len(second) <= 2:
        return LoopDims(B=batches, K=columns, C=inner, OY=rows, input_size=(rows, 1))
    if len(first) <= 2:
        # a matrix on the left of a batch: its rows are the output channels, the columns on the right are the positions
        return LoopDims(B=batches, K=rows, C=inner, OY=columns, input_size=(columns, 1))
    return LoopDims(G=batches, K=columns, C=inner, OY=rows, input_size=(rows, 1))


def _convolution(node: Node, first: Shape, second: Shape, output: Shape) -> LoopDims:
    transposed = node.op_type == "ConvTranspose"
    spatial = len(first) - 2
    attributes = node.attributes
    stride = tuple(attributes.get("strides", (1,) * spatial))
    dilation = tuple(attributes.get("dilations", (1,) * spatial))
    kernel = second[2:]
    pads = _pads(node, first[2:], output[2:], kernel, stride, dilation)
    if transposed:
        groups = int(attributes.get("group", 1))
        channels_out, channels_in, grid = second[1], first[1] // groups, first[2:]
    else:
        groups = first[1] // second[1]
        channels_out, channels_in, grid = second[0] // groups, second[1], output[2:]
    # three spatial axes: kernel planes act as more input channels, output planes as more images
    depth = spatial - 2 if spatial > 2 else 0
    rows = depth
    columns = rows + 1 if spatial > 1 else None

    def pair(values: Shape, default: int) -> tuple[int, int]:
        return values[rows], default if columns is None else values[columns]

    begin, end = pads[:spatial], pads[spatial:]
    (top, left), (bottom, right) = pair(begin, 0), pair(end, 0)
    (oy, ox), (fy, fx) = pair(grid, 1), pair(kernel, 1)
    return LoopDims(
        B=first[0] * prod(grid[:depth]),
        G=groups,
        K=channels_out,
        C=channels_in * prod(kernel[:depth]),
        OY=oy,
        OX=ox,
        FY=fy,
        FX=fx,
        stride=pair(stride, 1),
        dilation=pair(dilation, 1),
        pads=(top, left, bottom, right),
        input_size=pair(first[2:], 1),
        transposed=transposed,
    )


def _pads(node: Node, size: Shape, result: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    """Explicit pads (all begins, then all ends); `auto_pad` is worked out from the output size."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return tuple(node.attributes.get("pads", (0,) * (2 * len(size))))
    begins, ends = [], []
    for axis in range(len(size)):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        if node.op_type == "ConvTranspose":
            total = stride[axis] * (size[axis] - 1) + reach - result[axis]
        else:
            total = (result[axis] - 1) * stride[axis] + reach - size[axis]
        total = max(total, 0)
        small, large = total // 2, total - total // 2
        begins.append(large if auto == "SAME_LOWER" else small)
        ends.append(small if auto == "SAME_LOWER" else large)
    return tuple(begins + ends)
