"""Layer graphs made by hand for small models, without the parser: just what the quantization rewrite reads."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.loop_dims import LoopDims

WEIGHT_POSITIONS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1, 0)}


def channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """The weight's axis of output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
        return 0 if transposed else 1
    return rank - 1


def hand_graph(model: onnx.ModelProto) -> LayerGraph:
    """Layers of a float model whose weights are initializers; tensors, groups and loop sizes are left out."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    layers = []
    for node in model.graph.node:
        if node.op_type not in WEIGHT_POSITIONS:
            continue
        weight = next((node.input[i] for i in WEIGHT_POSITIONS[node.op_type] if node.input[i] in shapes), None)
        bias = node.input[2] if len(node.input) > 2 and node.input[2] in shapes else None
        following = readers.get(node.output[0], [])
        if node.op_type == "MatMul" and weight and len(following) == 1 and following[0].op_type == "Add":
            bias = next((name for name in following[0].input if name in shapes), None)
        shape = shapes.get(weight, ()) if weight else ()
        axis = channel_axis(node, len(shape))
        if node.op_type == "MatMul" and weight == node.input[0]:
            axis = len(shape) - 2
        layers.append(
            Layer(
                key=node.output[0],
                node_name=node.name,
                op_type=node.op_type,
                inputs=tuple(name for name in node.input[:2] if name != weight),
                outputs=tuple(node.output),
                weight=weight,
                bias=bias,
                weight_shape=shape,
                output_axis=axis,
                input_axis=1 - axis,
                loop_dims=LoopDims(),
            )
        )
    return LayerGraph(
        layers=tuple(layers),
        nodes=(),
        tensors={},
        inputs=tuple(value.name for value in model.graph.input if value.name not in shapes),
        outputs=tuple(value.name for value in model.graph.output),
        opset=model.opset_import[0].version,
        source_digest="",
    )


def arrays(model: onnx.ModelProto) -> dict[str, object]:
    """Initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
