"""Reading a ModelProto: who makes a tensor, who reads it, which tensors are constants.

Subgraphs (If, Loop, Scan) may read tensors of the graph around them; those reads count as reads of the node that owns
the subgraph.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.graph.external import tensor_values


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the default operator set (1 when the model does not say)."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """A plain Python value: int, float, str, a tuple of these; a tensor becomes a tuple of its elements."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return tuple(numpy_helper.to_array(value).ravel().tolist())
    if isinstance(value, onnx.GraphProto):
        return f"graph {value.name}"
    if isinstance(value, (list, tuple)) or hasattr(value, "__len__"):
        return tuple(item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value)
    return value


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """All attributes by name, as plain Python values."""
    return {attribute.name: attribute_value(attribute) for attribute in node.attribute}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs held by a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def captured(graph: onnx.GraphProto) -> set[str]:
    """Names that a subgraph reads from the graph around it."""
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    free: set[str] = set()
    for node in graph.node:
        free |= {name for name in reads(node) if name not in made}
        made.update(node.output)
    free |= {value.name for value in graph.output if value.name not in made}
    return free


def reads(node: onnx.NodeProto) -> list[str]:
    """Every tensor a node reads, its own inputs first, then what its subgraphs capture; no empty names."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        names += sorted(captured(graph) - set(names))
    return names


class ModelView:
    """Look-ups over one ModelProto, built once; the proto must not change while the view is in use."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.graph = proto.graph
        self.opset = opset_of(proto)
        self.initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.inputs = tuple(value.name for value in proto.graph.input if value.name not in self.initializers)
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._arrays: dict[str, NDArray[Any]] = {}

    @cached_property
    def producer(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor, once each, in file order."""
        table: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(reads(node)):
                table.setdefault(name, []).append(node)
        return table

    def array(self, name: str) -> NDArray[Any]:
        """The initializer's values (KeyError when it is not one)."""
        if name not in self._arrays:
            self._arrays[name] = tensor_values(self.initializers[name])
        return self._arrays[name]

    def constant(self, node: onnx.NodeProto, index: int) -> NDArray[Any] | None:
        """The values of a node's input when it is an initializer, else None."""
        if index >= len(node.input) or node.input[index] not in self.initializers:
            return None
        return self.array(node.input[index])

    def integers(self, node: onnx.NodeProto, index: int, attribute: str | None = None) -> tuple[int, ...] | None:
        """A list of integers given as an attribute (older opsets) or as a constant input; None when neither."""
        if attribute is not None:
            found = attributes(node).get(attribute)
            if found is not None:
                return tuple(int(item) for item in found) if isinstance(found, tuple) else (int(found),)
        values = self.constant(node, index)
        return None if values is None else tuple(int(item) for item in np.atleast_1d(values).ravel())

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The single node that reads a tensor which is no model output, else None."""
        readers = self.consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None
