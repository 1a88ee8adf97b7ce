"""The last two axes swapped by way of a shape with fewer axes: Reshape, Transpose, Reshape become one Transpose.

before  [B, h, n, d] -> [B h, n, d] -> [B h, d, n] -> [B, h, d, n]        after  y = Transpose(x), perm 0, 1, 3, 2

Both move the same values, but the batch and the heads of an attention stay apart, so that heads can be followed and
removed. PyTorch's exporter writes the keys of scaled_dot_product_attention so where the batch is dynamic.
"""

from __future__ import annotations

from math import prod

import onnx
from onnx import helper

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.normalize.editing import keep_nodes


def plain_swaps(proto: onnx.ModelProto, shapes: Shapes) -> None:
    """Replace every such swap, in place."""
    view = ModelView(proto)
    gone: set[str] = set()
    for first in proto.graph.node:
        if first.op_type != "Reshape":
            continue
        middle = view.only_consumer(first.output[0])
        last = view.only_consumer(middle.output[0]) if middle is not None and middle.op_type == "Transpose" else None
        if middle is None or last is None or last.op_type != "Reshape" or not _swaps(first, middle, last, shapes):
            continue
        rank = len(shapes[first.input[0]][0])
        order = [*range(rank - 2), rank - 1, rank - 2]
        gone |= {first.output[0], middle.output[0]}
        last.CopyFrom(helper.make_node("Transpose", [first.input[0]], [last.output[0]], name=last.name, perm=order))
    if gone:
        keep_nodes(proto.graph, lambda node: node.output[0] not in gone)


def _swaps(first: onnx.NodeProto, middle: onnx.NodeProto, last: onnx.NodeProto, shapes: Shapes) -> bool:
    """Whether the three nodes keep all axes but the last two, and swap these."""
    names = (first.input[0], first.output[0], last.output[0])
    if any(name not in shapes for name in names):
        return False
    before, merged, after = (shapes[name][0] for name in names)
    rank = len(merged)
    if min(len(before), rank) < 3 or 0 in before or before[-2:] != merged[-2:]:
        return False
    if tuple(attributes(middle).get("perm", ())) != (*range(rank - 2), rank - 1, rank - 2):
        return False
    return prod(before[:-2]) == prod(merged[:-2]) and after == (*before[:-2], before[-1], before[-2])
