"""Softmax over the last axis, which raising the opset wraps into a matrix of rows, works on its operand directly.

before  y = Reshape(Softmax(Flatten(x, axis=rank - 1)), shape of x)        after  y = Softmax(x, axis=-1)

Below opset 13 Softmax works on a matrix, and the converter writes that out wherever it does not know the rank. For the
last axis both are the same, but heads cannot be followed through the matrix.
"""

from __future__ import annotations

import onnx

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.graph.op_kinds import SOFTMAXES
from hwc_onnx.normalize.editing import keep_nodes


def unwrap_softmax(proto: onnx.ModelProto, shapes: Shapes) -> None:
    """Take the matrix away around every Softmax, LogSoftmax and Hardmax over the last axis, in place."""
    view = ModelView(proto)
    gone: set[str] = set()
    for first in proto.graph.node:
        middle = view.only_consumer(first.output[0]) if first.op_type == "Flatten" else None
        last = view.only_consumer(middle.output[0]) if middle is not None and middle.op_type in SOFTMAXES else None
        if middle is None or last is None or last.op_type != "Reshape" or last.input[0] != middle.output[0]:
            continue
        names = (first.input[0], last.output[0])
        if any(name not in shapes for name in names) or shapes[names[0]] != shapes[names[1]]:
            continue
        rank = len(shapes[names[0]][0])
        if int(attributes(first).get("axis", 1)) % rank != rank - 1 or attributes(middle).get("axis") not in (-1, 1):
            continue
        gone |= {first.output[0], middle.output[0]}
        last.CopyFrom(onnx.helper.make_node(middle.op_type, [names[0]], [names[1]], name=middle.name, axis=-1))
    if gone:
        keep_nodes(proto.graph, lambda node: node.output[0] not in gone)
