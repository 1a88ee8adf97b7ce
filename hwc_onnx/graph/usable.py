"""Constants that cannot be meant: NaN or infinite values among weights.

Minus infinity is how scores are masked before a softmax, and a `Where` may mark what it leaves out with anything, so what a constant may hold depends on
who reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from hwc_onnx.errors import ModelError
from hwc_onnx.graph import external
from hwc_onnx.graph.model_view import subgraphs

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
MARKING = frozenset({"Where"})
"""Operators that may read any value: what they leave out is not computed with."""
MASKING = MARKING | {
    "Add", "Sub", "Max", "Min", "Softmax", "LogSoftmax", "Gather", "GatherElements", "GatherND", "Slice", "Concat", "Expand", "Tile", "Pad", "Trilu",
    "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast",
}  # fmt: skip
"""Operators that masks with minus infinity pass on their way to a softmax."""


def check_values(proto: onnx.ModelProto, where: str) -> None:
    """Raises ModelError where a constant is damaged or holds values that cannot be meant; `where` is the file."""
    readers: dict[str, set[str]] = {}
    for node in _nodes(proto.graph):
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    for name, tensor in _constants(proto.graph):
        if tensor.data_type not in _FLOATS:
            continue
        try:
            values = external.tensor_values(tensor)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{where}: tensor '{name}' is truncated or damaged ({error}); export the model again") from error
        bad = _not_usable(values, readers.get(name, set()))
        if bad:
            raise ModelError(
                f"{where}: weight '{name}' holds {bad} NaN or infinite values of {values.size}; train or export the model again"
            )


def _not_usable(values: NDArray[Any], readers: set[str]) -> int:
    """How many elements make a constant useless that these operators read; bounds of a Clip and masks may be infinite."""
    if readers and readers <= MARKING:
        return 0
    if values.size == 1 or values.ndim < 2:
        return int(np.isnan(values).sum())
    flat = values.reshape(-1)
    step = external.BLOCK_BYTES // values.itemsize
    legal = bool(readers) and readers <= MASKING
    bad = 0
    for start in range(0, flat.size, step):
        block = flat[start : start + step].astype(np.float32, copy=False)
        bad += int((~np.isfinite(block) & ~(legal & np.isneginf(block))).sum())
    return bad


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Initializers and tensors of attributes under the names that nodes read them by, subgraphs included."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    yield from ((sparse.values.name, sparse.values) for sparse in graph.sparse_initializer)
    for node in graph.node:
        name = node.output[0] if node.output else node.name
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield name, attribute.t
            yield from ((name, tensor) for tensor in attribute.tensors)
        for inner in subgraphs(node):
            yield from _constants(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)
