"""How channels travel through operators that look at many elements at once: reductions, normalizations, recurrences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hwc_onnx.graph.axis_graph import AxisGraph
from hwc_onnx.graph.axis_moves import title
from hwc_onnx.graph.layer_graph import Node


def align(graph: AxisGraph, operand: str, result: str) -> None:
    """Broadcasting: the operand's axes line up with the result's from the right; axes of size 1 carry no channels."""
    small, large = graph.shapes[operand], graph.shapes[result]
    shift = len(large) - len(small)
    for axis, size in enumerate(small):
        if size == large[axis + shift]:
            graph.link((operand, axis), (result, axis + shift))


def reduce(graph: AxisGraph, node: Node) -> None:
    """Axes that stay are linked. Those that are reduced may lose positions: the mean is then that of the channels left."""
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
            graph.vertices(x, axis)
            position += int(kept)
        else:
            graph.link((x, axis), (y, position))
            position += 1


def softmax(graph: AxisGraph, node: Node) -> None:
    """Channels that are compared with each other stay."""
    align(graph, node.inputs[0], node.outputs[0])
    rank = len(graph.shapes[node.inputs[0]])
    axis = int(node.attributes.get("axis", -1)) % rank
    graph.lock((node.inputs[0], axis), f"are compared with each other by {title(node)}")


def layer_norm(graph: AxisGraph, node: Node) -> None:
    """Statistics are those of the channels left; scale and bias lose what the operand loses."""
    for name in node.inputs:
        if name:
            align(graph, name, node.outputs[0])
    for name in node.outputs[1:]:
        if name:
            graph.lock_all(node, f"reach {title(node)}, whose statistics are read")


def across_channels(graph: AxisGraph, node: Node) -> None:
    """Normalization over neighbouring channels: neighbours are those among the channels left."""
    align(graph, node.inputs[0], node.outputs[0])


def group_norm(graph: AxisGraph, node: Node) -> None:
    """Whole groups of channels can go."""
    x = node.inputs[0]
    channels, groups = graph.shapes[x][1], int(node.attributes.get("num_groups", 1))
    align(graph, node.inputs[0], node.outputs[0])
    graph.link((x, 1), (x, 1), np.arange(channels) // (channels // groups) * (channels // groups))
    for name in node.inputs[1:]:
        size = graph.shapes[name][0]
        graph.link((x, 1), (name, 0), np.arange(size) * (channels // size))
    for axis in range(2, len(graph.shapes[x])):
        graph.lock((x, axis), f"are normalized together by {title(node)}")


def instance_norm(graph: AxisGraph, node: Node) -> None:
    """Each channel by itself, with its parameters; positions are normalized together."""
    align(graph, node.inputs[0], node.outputs[0])
    for name in node.inputs[1:]:
        graph.link((node.inputs[0], 1), (name, 0))
    for axis in range(2, len(graph.shapes[node.inputs[0]])):
        graph.lock((node.inputs[0], axis), f"are normalized together by {title(node)}")


def recurrent(graph: AxisGraph, node: Node) -> None:
    """LSTM, GRU, RNN: what the cell reads and gives out is tied to its gates and stays."""
    reason = f"are read or made by the cell of {title(node)}"
    for name in (*node.inputs, *node.outputs):
        for axis in range(len(graph.shapes.get(name, ()))):
            graph.lock((name, axis), reason)


def einsum(graph: AxisGraph, node: Node) -> None:
    """Axes with the same letter run together."""
    equation = str(node.attributes.get("equation", "")).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    names = (*node.inputs, node.outputs[0])
    if not arrow or "." in equation or len(operands) != len(node.inputs):
        graph.lock_all(node, f"reach {title(node)}, whose equation cannot be followed")
        return
    places: dict[str, list[tuple[str, int]]] = {}
    for name, letters in zip(names, (*operands, result), strict=True):
        for axis, letter in enumerate(letters):
            places.setdefault(letter, []).append((name, axis))
    for found in places.values():
        graph.vertices(*found[0])
        for first, second in pairwise(found):
            graph.link(first, second)


def sample(graph: AxisGraph, node: Node) -> None:
    """Pixels picked at computed places: channels go through, everything else is a position."""
    x, y = node.inputs[0], node.outputs[0]
    graph.link((x, 1), (y, 1))
    for tensor in (*node.inputs, y):
        for axis in range(len(graph.shapes.get(tensor, ()))):
            if axis != 1 or tensor not in (x, y):
                graph.lock((tensor, axis), f"become positions in {title(node)}")
