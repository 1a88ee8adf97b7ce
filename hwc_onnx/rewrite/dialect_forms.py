"""Forms of a weight that some runtimes expect beside `DequantizeLinear(integers)`; all leave its values as they are.

    clip_weights        w = DequantizeLinear(Clip(integers, low, high))      the width is in the graph (QCDQ)
    block_weights       w = DequantizeLinear(integers as INT4, block_size)   one scale per block of a column (TensorRT)
    widen_left_weights  w = DequantizeLinear(integers as INT16)              left operands of MatMul (OpenVINO)

QCDQ: Pappalardo et al., "QONNX", 2022, section III, and the export of Brevitas (export/common/handler/qcdq.py), where
an 8-bit container is clipped whenever the width is below 8. A 2-bit weight with mirrored channels (-2 .. 1 and -1 .. 2)
is clipped to -2 .. 2; its width stays declared in `hwc.bits`.

A weight with a scale per output channel is a weight with a scale per block whose blocks happen to agree, so the second
form needs no other numbers. Blocks run along the axis that the product sums over.

OpenVINO 2026.4 does not compile a MatMul whose left operand is an 8-bit weight with a scale per row: it moves the scales
behind the product, where it knows only scales per column ("Check 'any_of(scale.size(), OC, 1U)' failed"). Of INT16 it
makes float weights. The width stays declared in `hwc.bits`.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwc_onnx.graph.packing import integer_tensor, integer_values
from hwc_onnx.graph.read_qdq import BITS_KEY
from hwc_onnx.rewrite.opset import raise_opset

INT4_OPSET = 21
"""INT4 tensors, `block_size` and INT16 of DequantizeLinear."""

INT4_WIDTHS = (3, 4)
"""Weights that are stored in INT4 blocks; 2-bit ones with mirrored channels would be taken for wider ones there."""


def clip_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every INT8 weight of a declared narrower width passes a Clip."""
    found = _copy(model)
    bits, tensors = _declared(found), _tensors(found)
    bounds: dict[int, str] = {}
    nodes = []
    for node in found.graph.node:
        stored = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        width = bits.get(node.output[0], 8) if stored is not None else 8
        if stored is not None and stored.data_type == TensorProto.INT8 and width < 8:
            codes = integer_values(stored)
            low, high = -(1 << (width - 1)), max((1 << (width - 1)) - 1, int(codes.max(initial=0)))
            for value in (low, high):
                if value not in bounds:
                    bounds[value] = _fresh(found, f"int8_{value}_bound")
                    found.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int8), bounds[value]))
            clipped = _fresh(found, f"{node.output[0]}_clipped")
            inputs = [node.input[0], bounds[low], bounds[high]]
            nodes.append(helper.make_node("Clip", inputs, [clipped], name=f"{clipped}_Clip"))
            node.input[0] = clipped
        nodes.append(node)
    return _with_nodes(found, nodes)


def block_weights(model: onnx.ModelProto, sizes: Collection[int]) -> onnx.ModelProto:
    """A copy in which 3 and 4-bit weights of products with a float input are INT4 with a scale per block.

    Only where one of the block `sizes` (the first that fits is taken) divides the length of the sum and the last axis is
    even, as two integers share a byte. The model comes back as it is where nothing fits, or where its opset cannot be
    raised to 21.
    """
    chosen = _blocked(model, sizes)
    raised = raise_opset(model, INT4_OPSET) if chosen else None
    if raised is None:
        return model
    found = _copy(raised)
    bits, tensors = _declared(found), _tensors(found)
    makers = {node.output[0]: node for node in found.graph.node}
    for name, (axis, size) in chosen.items():
        node = makers[name]
        codes, scale = integer_values(tensors[node.input[0]]), numpy_helper.to_array(tensors[node.input[1]])
        shape = list(codes.shape)
        shape[axis] //= size
        along = np.broadcast_to(scale.reshape((1, -1) if axis == 0 else (-1, 1)), shape)
        zeros = np.zeros(shape, np.int8)
        for position, tensor in enumerate(
            (
                integer_tensor(node.input[0], codes.astype(np.int8), TensorProto.INT4),
                numpy_helper.from_array(np.ascontiguousarray(along), node.input[1]),
                integer_tensor(node.input[2], zeros, TensorProto.INT4),
            )
        ):
            tensors[node.input[position]].CopyFrom(tensor)
        del node.attribute[:]
        node.attribute.extend([helper.make_attribute("axis", axis), helper.make_attribute("block_size", size)])
        if bits.get(name) == 4:
            del bits[name]
    _declare(found, bits)
    return found


def widen_left_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which 8-bit weights that stand on the left of a MatMul are INT16, with their width declared.

    The model comes back as it is where there is none, or where its opset cannot be raised to 21.
    """
    left = {node.input[0] for node in model.graph.node if node.op_type == "MatMul"}
    tensors = _tensors(model)
    names = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] in left and _type(tensors, node) == TensorProto.INT8
    }
    raised = raise_opset(model, INT4_OPSET) if names else None
    if raised is None:
        return model
    found = _copy(raised)
    bits, tensors = _declared(found), _tensors(found)
    for node in found.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in names:
            for name in (node.input[0], node.input[2]):
                tensors[name].CopyFrom(integer_tensor(name, integer_values(tensors[name]), TensorProto.INT16))
            bits.setdefault(node.output[0], 8)
    _declare(found, bits)
    return found


def _type(tensors: dict[str, TensorProto], node: NodeProto) -> int | None:
    """ONNX type of the constant that a node reads first."""
    return int(tensors[node.input[0]].data_type) if node.input[0] in tensors else None


def _blocked(model: onnx.ModelProto, sizes: Collection[int]) -> dict[str, tuple[int, int]]:
    """Weights that can be stored in blocks: the axis that is summed over and the size of a block."""
    bits, tensors = _declared(model), _tensors(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for node in model.graph.node:
        stored = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        reading = readers.get(node.output[0], []) if node.output else []
        if stored is None or len(stored.dims) != 2 or bits.get(node.output[0], 8) not in INT4_WIDTHS or len(reading) != 1:
            continue
        product = reading[0]
        if product.op_type not in ("MatMul", "Gemm") or product.input[1] != node.output[0]:
            continue
        source = makers.get(product.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            continue
        axis = 1 if any(entry.name == "transB" and entry.i for entry in product.attribute) else 0
        size = next((size for size in sizes if stored.dims[axis] % size == 0), None)
        if size is not None and stored.dims[1] % 2 == 0 and len(tensors[node.input[1]].dims) == 1:
            found[node.output[0]] = (axis, size)
    return found


def _declared(model: onnx.ModelProto) -> dict[str, int]:
    text = next((entry.value for entry in model.metadata_props if entry.key == BITS_KEY), "{}")
    declared: dict[str, int] = json.loads(text)
    return declared


def _declare(model: onnx.ModelProto, bits: dict[str, int]) -> None:
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != BITS_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, *([(BITS_KEY, json.dumps(bits, sort_keys=True))] if bits else [])]:
        model.metadata_props.add(key=key, value=value)


def _tensors(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _fresh(model: onnx.ModelProto, name: str) -> str:
    """`name`, or with a number behind it where a tensor has that name."""
    taken = {tensor.name for tensor in model.graph.initializer} | {out for node in model.graph.node for out in node.output}
    return next(candidate for number in range(len(taken) + 1) if (candidate := f"{name}_{number}" if number else name) not in taken)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _with_nodes(model: onnx.ModelProto, nodes: list[NodeProto]) -> onnx.ModelProto:
    """`model` with these nodes, some of which are its own (in place)."""
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model
