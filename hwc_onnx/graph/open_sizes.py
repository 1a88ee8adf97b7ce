"""A size that the model leaves open although only one value fits is found from the constants.

A Flatten in front of a linear layer fixes the size of the image, a table of positions that of the sequence. All open
axes but the batch are taken to be of one size n (images are square). n is looked for where the linear layers' operands
get the size that their weights have, and among the sizes of the constants; it counts only if every operator accepts it
and two arbitrary sizes are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import Shapes, declared_shapes

logger = logging.getLogger(__name__)

LARGEST = 4096
PLATEAU = 64
"""Strides make neighbouring sizes fit alike; so many are looked at."""

ARBITRARY = (61, 67)


def settle_open_sizes(proto: onnx.ModelProto) -> None:
    """Declare the only size that fits, in place; a model that accepts several kinds of sizes is left alone."""
    axes = [
        dim
        for value in proto.graph.input
        if value.name not in {tensor.name for tensor in proto.graph.initializer}
        for dim in value.type.tensor_type.shape.dim[1:]
        if not dim.HasField("dim_value")
    ]
    declared = all(value.type.tensor_type.HasField("shape") for value in proto.graph.input)
    if not axes or not declared or any(_fits(proto, size) for size in ARBITRARY):
        return
    fitting = sorted({size for size in _candidates(proto) if _fits(proto, size)})
    if not fitting:
        return
    # exporters use sizes that can be halved often; where a stride lets several through, that one was meant
    best = max(fitting, key=lambda size: (size & -size, -size))
    if len(fitting) > 1:
        logger.warning(
            "open sizes are taken as %d; %d to %d would fit too (--input-shape settles it)", best, fitting[0], fitting[-1]
        )
    else:
        logger.info("open sizes are %d: nothing else fits the constants", best)
    for dim in axes:
        dim.dim_value = best


def _shapes(proto: onnx.ModelProto, size: int, strict: bool) -> Shapes | None:
    """All shapes with every open axis but the first at `size`; None where they contradict each other."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    settled = {
        value.name: [
            dim.dim_value if dim.HasField("dim_value") else 1 if axis == 0 else size
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        ]
        for value in proto.graph.input
        if value.name not in constants
    }
    try:
        return declared_shapes(proto, settled, strict)
    except ModelError:
        return None


def _products(proto: onnx.ModelProto, shapes: Shapes) -> Iterator[tuple[int, int]]:
    """(size of the operand, size of the weight) along the summed axis of each linear layer with constant weights."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in weights or node.input[0] not in shapes:
            continue
        flags = {attribute.name: attribute.i for attribute in node.attribute}
        shape, weight = shapes[node.input[0]][0], weights[node.input[1]]
        if shape and weight and not flags.get("transA", 0):
            yield shape[-1], weight[-1] if flags.get("transB", 0) else weight[max(len(weight) - 2, 0)]


def _fits(proto: onnx.ModelProto, size: int) -> bool:
    found = _shapes(proto, size, strict=True)
    return found is not None and all(operand == weight for operand, weight in _products(proto, found))


def _candidates(proto: onnx.ModelProto) -> Iterator[int]:
    yield from sorted({size for tensor in proto.graph.initializer for size in tensor.dims if 2 <= size <= LARGEST})[:64]

    def short(size: int) -> bool:
        """Whether some linear layer gets less than its weight needs (or the windows do not even fit)."""
        found = _shapes(proto, size, strict=False)
        pairs = [] if found is None else list(_products(proto, found))
        return not pairs or any(operand < weight for operand, weight in pairs)

    low, high = 1, LARGEST
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if short(middle) else (low, middle)
    for size in range(low, min(low + PLATEAU, LARGEST)):
        if short(size) or not _fits(proto, size):
            return
        yield size
