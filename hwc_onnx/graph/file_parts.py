"""What the bytes of a model file are for.

A narrow weight makes a file smaller only as far as the file is weights: scales, constants that stay in float, nodes and names
are as large as before, and on a small model they are much of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

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


def growth(original: onnx.ModelProto, original_bytes: int, parts: Mapping[str, int]) -> str | None:
    """Why a file of these `parts` is larger than the original, None where it is not."""
    if sum(parts.values()) <= original_bytes:
        return None
    before = file_parts(original, original_bytes)["weights"]
    stored = {tensor.name for tensor in original.graph.initializer}
    readers = Counter(name for name in _weights(original.graph) if name in stored)
    shared = [count for count in readers.values() if count > 1]
    said = f"the file is larger than the original ({sum(parts.values()):,} bytes, {original_bytes:,})"
    if 2 * parts["weights"] > before and not shared:
        return f"{said}: this dialect stores weights nearly as wide as float, and the nodes that quantize come on top"
    if shared and 2 * parts["weights"] > before:
        return (
            f"{said}: {sum(shared)} layers of the original share {len(shared)} weight{'s' if len(shared) > 1 else ''}, here each has its own, since each is quantized and "
            "repaired for what it reads; the accelerator's energy counts the weights of each layer in both"
        )
    return f"{said}: most of it is not weights; the nodes that quantize and their scales outweigh what narrow weights save"


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
