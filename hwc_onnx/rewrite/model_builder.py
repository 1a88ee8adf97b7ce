"""Assemble a new model from an old one: nodes in order, initializers replaced or added, names that never collide.

The old model is only read. Nothing is checked here, so that building a candidate costs milliseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from hwc_onnx.graph import external
from hwc_onnx.graph.model_view import reads
from hwc_onnx.graph.packing import checked_codes, integer_tensor
from hwc_onnx.rewrite.opset import ensure_ir_version


class ModelBuilder:
    """The new model while it grows.

    Attributes:
        source: the old model.
        original: its initializers by name.
        inputs: names of its inputs that are not initializers.
        outputs: names of its outputs.
        readers: the old nodes that read each tensor.
        nodes: the new nodes, appended to by the caller in topological order.
    """

    def __init__(self, source: onnx.ModelProto) -> None:
        graph = source.graph
        self.source = source
        self.original = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [value.name for value in graph.input if value.name not in self.original]
        self.nodes: list[NodeProto] = []
        self.outputs = {value.name for value in graph.output}
        self.readers: dict[str, list[NodeProto]] = {}
        self._taken = {value.name for value in graph.input} | set(self.original)
        for node in graph.node:
            self._taken.update(node.output)
            for name in reads(node):
                self.readers.setdefault(name, []).append(node)
        self._replaced: set[str] = set()
        self._added: list[TensorProto] = []
        self._bounds: dict[str, float] = {}
        self._scalars: dict[tuple[int, bool], str] = {}
        self._large = external.any_mapped(source)

    def made(self) -> set[str]:
        """Every tensor of the old model that is fed or computed."""
        return {*self.inputs, *(name for node in self.source.graph.node for name in node.output)}

    def bound(self, node: NodeProto, position: int) -> float:
        """The constant bound of a Clip; infinite where there is none, NaN where it is computed."""
        name = node.input[position] if len(node.input) > position else ""
        if not name:
            return -math.inf if position == 1 else math.inf
        if name not in self._bounds:
            tensor = self.original.get(name)
            self._bounds[name] = math.nan if tensor is None else float(numpy_helper.to_array(tensor).reshape(()))
        return self._bounds[name]

    def fresh(self, name: str) -> str:
        """`name`, or `name` with the first number that makes it unused; it is used from now on."""
        candidate, number = name, 1
        while candidate in self._taken:
            candidate, number = f"{name}_{number}", number + 1
        self._taken.add(candidate)
        return candidate

    def own(self, name: str) -> str:
        """The name under which one node may replace initializer `name`: its own if nothing else reads it."""
        if len(self.readers[name]) > 1:
            return self.fresh(name + "_own")
        self._replaced.add(name)
        return name

    def add_float(self, name: str, values: NDArray[np.float32]) -> None:
        """Add a float32 initializer."""
        stored = np.asarray(values, "<f4", order="C")
        if self._large:
            self._added.append(external.keep(name, stored, large=True))
        else:
            raw = stored.tobytes()
            self._added.append(TensorProto(name=name, data_type=TensorProto.FLOAT, dims=stored.shape, raw_data=raw))

    def add_integers(self, name: str, codes: NDArray[np.integer], data_type: int) -> None:
        """Add an integer initializer of the given ONNX type, packed."""
        if self._large and data_type not in external.PACKED_BITS and codes.nbytes >= external.SPILL_BYTES:
            self._added.append(external.spill(name, checked_codes(name, codes, data_type)))
        else:
            self._added.append(integer_tensor(name, codes, data_type))

    def integer_scalar(self, value: int, signed: bool) -> str:
        """An 8-bit scalar, one initializer for all nodes that need this value."""
        if (value, signed) not in self._scalars:
            name = self.fresh(f"{'int8' if signed else 'uint8'}_{value}")
            data_type = TensorProto.INT8 if signed else TensorProto.UINT8
            raw = value.to_bytes(1, "little", signed=signed)
            self._added.append(TensorProto(name=name, data_type=data_type, raw_data=raw))
            self._scalars[value, signed] = name
        return self._scalars[value, signed]

    def add_node(self, op_type: str, inputs: list[str], output: str, **integers: int) -> None:
        """Append a node with one output and integer attributes."""
        node = NodeProto(op_type=op_type, name=f"{output}_{op_type}", input=inputs, output=[output])
        for name, value in integers.items():
            node.attribute.add(name=name, type=onnx.AttributeProto.INT, i=value)
        self.nodes.append(node)

    def build(self, metadata: Mapping[str, object]) -> onnx.ModelProto:
        """The finished model: declared inputs, outputs and foreign metadata as before, `metadata` as JSON added."""
        source, model = self.source, onnx.ModelProto()
        for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
            setattr(model, field, getattr(source, field))
        model.opset_import.extend(source.opset_import)
        model.functions.extend(source.functions)
        texts = {entry.key: entry.value for entry in source.metadata_props}
        texts.update({key: json.dumps(value, sort_keys=True) for key, value in metadata.items()})
        for key, text in texts.items():
            model.metadata_props.add(key=key, value=text)
        graph = model.graph
        graph.name, graph.doc_string = source.graph.name, source.graph.doc_string
        graph.input.extend(value for value in source.graph.input if value.name not in self._replaced)
        graph.output.extend(source.graph.output)
        graph.value_info.extend(source.graph.value_info)
        graph.sparse_initializer.extend(source.graph.sparse_initializer)
        graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name not in self._replaced)
        graph.initializer.extend(self._added)
        graph.node.extend(self.nodes)
        ensure_ir_version(model)
        return model
