"""Products with a constant vector become products with a matrix of one column or row, so that they are layers like others.

    before  y = MatMul(x, v), v [k]        after  y = Squeeze(MatMul(x, v as [k, 1]), -1)
    before  y = MatMul(v, x), v [k]        after  y = Squeeze(MatMul(v as [1, k], x), -2)
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hwc_onnx.graph.model_view import opset_of
from hwc_onnx.normalize.editing import all_names, fresh_name, put_initializer

AXES_AS_OPERAND = 13
"""The opset from which Squeeze reads its axes."""


def matrix_products(proto: onnx.ModelProto) -> bool:
    """Rewrite every MatMul of a constant vector and a tensor, in place; whether there was one."""
    graph = proto.graph
    vectors = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 1}
    taken = all_names(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        sides = [side for side, name in enumerate(node.input) if name in vectors] if node.op_type == "MatMul" else []
        if len(sides) != 1:
            nodes.append(node)
            continue
        (side,) = sides
        vector = numpy_helper.to_array(vectors[node.input[side]])
        matrix = fresh_name(taken, f"{node.input[side]}_matrix")
        put_initializer(graph, matrix, vector[:, None] if side else vector[None, :])
        raw = fresh_name(taken, f"{node.output[0]}_product")
        inputs = [node.input[0], matrix] if side else [matrix, node.input[1]]
        nodes.append(helper.make_node("MatMul", inputs, [raw], name=node.name))
        nodes.append(_squeeze(proto, taken, raw, node.output[0], -1 if side else -2))
    changed = len(nodes) != len(graph.node)
    if changed:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    return changed


def _squeeze(proto: onnx.ModelProto, taken: set[str], source: str, output: str, axis: int) -> onnx.NodeProto:
    if opset_of(proto) < AXES_AS_OPERAND:
        return helper.make_node("Squeeze", [source], [output], axes=[axis])
    axes = fresh_name(taken, f"{output}_axes")
    put_initializer(proto.graph, axes, np.array([axis], dtype=np.int64))
    return helper.make_node("Squeeze", [source, axes], [output])
