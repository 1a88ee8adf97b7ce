"""What the bytes of a model file are for.

A narrow weight makes a file smaller only as far as the file is weights: scales, constants that stay in float, nodes and names
are as large as before, and on a small model they are much of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from hwc_onnx.graph.external import stored_bytes
from hwc_onnx.graph.op_kinds import GATES, LAYER_OPS

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Quant", "BipolarQuant"})
CARRIERS = QUANTIZERS | {"Clip", "Reshape", "Transpose", "Cast", "Identity"}
"""Operators that may stand between a stored weight and its layer."""


def file_parts(model: onnx.ModelProto, file_bytes: int) -> dict[str, int]:
    """Bytes of `weights`, of `quantizers` (scales, zero points, limits), of other `constants`, of `metadata` and of the `graph`.

    Args:
        model: as it is written, weights in it or outside.
        file_bytes: of all files together; what no other part takes is the graph's (nodes, names, shapes, padding).
    """
    sizes = {tensor.name: stored_bytes(tensor) for tensor in model.graph.initializer if tensor.data_type != onnx.TensorProto.STRING}
    weights = set(_weights(model.graph)) & sizes.keys()
    settings = {
        name
        for node in model.graph.node
        for name in node.input[1:]
        if node.op_type in QUANTIZERS or (node.op_type == "Clip" and node.input[0] not in sizes)
    } & (sizes.keys() - weights)
    parts = {
        "weights": sum(sizes[name] for name in weights),
        "quantizers": sum(sizes[name] for name in settings),
        "constants": sum(sizes[name] for name in sizes.keys() - weights - settings),
        "metadata": sum(entry.ByteSize() for entry in model.metadata_props),
    }
    return parts | {"graph": file_bytes - sum(parts.values())}


def _weights(graph: onnx.GraphProto) -> Iterator[str]:
    """Constants that a layer multiplies with, behind whatever restores them."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in LAYER_OPS | GATES.keys():
            continue
        for name in node.input if node.op_type == "MatMul" else node.input[1 : 3 if node.op_type in GATES else 2]:
            while name in makers and makers[name].op_type in CARRIERS:
                name = makers[name].input[0]
            yield name
