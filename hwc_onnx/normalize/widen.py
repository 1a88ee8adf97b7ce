"""Half- and double-precision models become float32 ones inside; declared inputs and outputs keep their types.

Everything after this works on float32, and a quantizer's scale below 6e-5 would not even survive in float16.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hwc_onnx.graph import external
from hwc_onnx.graph.model_view import subgraphs
from hwc_onnx.normalize.editing import all_names, forget_shapes, fresh_name, rename_reads

HALF = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
OTHER_FLOATS = HALF | {TensorProto.DOUBLE}
UNRUNNABLE = frozenset({TensorProto.DOUBLE, TensorProto.BFLOAT16})
"""ONNX Runtime's CPU provider has few kernels of these types."""


def widen(proto: onnx.ModelProto) -> bool:
    """Make every float tensor inside the model float32, in place; says whether any was of half precision."""
    kinds = float_kinds(proto.graph)
    if not kinds & OTHER_FLOATS:
        return False
    taken = all_names(proto.graph)
    _widen_constants(proto.graph)
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    for value in proto.graph.input:
        if value.type.tensor_type.elem_type in OTHER_FLOATS:
            wide = fresh_name(taken, f"{value.name}_float32")
            rename_reads(proto.graph, {value.name: wide})
            before.append(onnx.helper.make_node("Cast", [value.name], [wide], name=wide, to=TensorProto.FLOAT))
    for value in proto.graph.output:
        kind = value.type.tensor_type.elem_type
        if kind in OTHER_FLOATS:
            wide = fresh_name(taken, f"{value.name}_float32")
            rename_reads(proto.graph, {value.name: wide})
            for node in proto.graph.node:
                for place, name in enumerate(node.output):
                    if name == value.name:
                        node.output[place] = wide
            after.append(onnx.helper.make_node("Cast", [wide], [value.name], name=f"{wide}_back", to=kind))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*before, *proto.graph.node, *after)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    forget_shapes(proto.graph)
    return bool(kinds & HALF)


def float_kinds(graph: onnx.GraphProto) -> set[int]:
    """Element types of constants, inputs, outputs and tensor attributes, subgraphs included."""
    found = {tensor.data_type for tensor in graph.initializer}
    found |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    for node in graph.node:
        found |= {attribute.t.data_type for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR}
        for inner in subgraphs(node):
            found |= float_kinds(inner)
    return found


def _widen_constants(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.name in ("to", "dtype") and node.op_type != "QuantizeLinear" and attribute.i in OTHER_FLOATS:
                attribute.i = TensorProto.FLOAT
        for inner in subgraphs(node):
            _widen_constants(inner)
            for value in (*inner.input, *inner.output, *inner.value_info):
                if value.type.tensor_type.elem_type in OTHER_FLOATS:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type not in OTHER_FLOATS:
        return
    values = external.tensor_values(tensor)
    if external.is_mapped(tensor):
        flat = external.map_blocks(values.reshape(-1), lambda block, _: block.astype(np.float32))
        tensor.CopyFrom(external.spill_blocks(tensor.name, values.shape, TensorProto.FLOAT, flat))
    else:
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values).astype(np.float32), tensor.name))
