"""Read QONNX: each Quant node becomes the QuantizeLinear, Clip and DequantizeLinear that stand for the same integers.

    Quant(x, s, z, b) = s (round(limit(x / s + z)) - z)        limit to the integers of b bits, round half to even

The node carries real values, so ONNX Runtime could run it if it had it; it does not. A constant x becomes the integers it
stands for, with z taken off them where that fits. The two forms give the same integer for every x except those within
float32 rounding of a tie: x / s + z is rounded there, x / s here; where z is 0 they never differ.

Source: qonnx 1.0.0, custom_op/general/intquant.py (`int_quant`, `min_int`, `max_int`); Pappalardo et al., "QONNX", 2022.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwc_onnx.graph.external import tensor_values
from hwc_onnx.graph.model_view import opset_of, reads, subgraphs
from hwc_onnx.graph.packing import integer_tensor
from hwc_onnx.graph.read_qdq import BITS_KEY

QUANT_DOMAIN = "qonnx.custom_op.general"
QUANT_OPS = frozenset({"Quant", "IntQuant"})
"""Two names of one operator."""

_LOWEST_OPSET, _WIDE_OPSET = 13, 21
_EVEN = ("ROUND", "HALF_EVEN")


def quant_nodes(proto: onnx.ModelProto) -> list[NodeProto]:
    """The Quant nodes of the main graph."""
    return [node for node in proto.graph.node if is_quant(node)]


def is_quant(node: NodeProto) -> bool:
    """Whether this is a Quant node of QONNX."""
    return node.domain == QUANT_DOMAIN and node.op_type in QUANT_OPS


@dataclass(frozen=True)
class Quant:
    """The parameters of one Quant node: scale and zero point as they broadcast against x, width and integer range."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.float32]
    bits: int
    signed: bool
    narrow: bool

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -(1 << (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1 - self.narrow

    def integers(self, values: NDArray[np.float32]) -> NDArray[np.int32]:
        """Integers of `values` as the node rounds them, zero point included."""
        limited = np.clip(values / self.scale + self.zero_point, self.low, self.high)
        found: NDArray[np.int32] = np.rint(limited).astype(np.int32)
        return found


def with_qdq(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` with every Quant node replaced; itself where it has none, or one that has no such form.

    No form have: widths that are not whole or above 8 (16 for constants), other rounding than half to even, parameters
    that are computed, an activation with a scale per channel, an opset below 13, and nodes inside control flow.
    """
    nodes = quant_nodes(proto)
    if not nodes or any(_inside(node) for node in proto.graph.node):
        return proto
    reading = _Reading(proto)
    return reading.model() if reading.take_all() else proto


class _Reading:
    """One model while its Quant nodes are replaced."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto, self.opset = proto, opset_of(proto)
        self.tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        for node in proto.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.tensors[node.output[0]] = node.attribute[0].t
        self.taken = set(self.tensors) | {name for node in proto.graph.node for name in node.output}
        self.taken |= {value.name for value in proto.graph.input}
        self.nodes: list[NodeProto] = []
        self.added: list[TensorProto] = []
        self.bits: dict[str, int] = {}

    def take_all(self) -> bool:
        """Whether every Quant node was replaced."""
        for node in self.proto.graph.node:
            if not is_quant(node):
                self.nodes.append(node)
            elif not self._take(node):
                return False
        return True

    def _take(self, node: NodeProto) -> bool:
        quant = self._parameters(node)
        if quant is None or self.opset < _LOWEST_OPSET:
            return False
        constant = self.tensors.get(node.input[0])
        if constant is None:
            return self._activation(node, quant)
        return self._constant(node, quant, np.asarray(tensor_values(constant), np.float32))

    def _parameters(self, node: NodeProto) -> Quant | None:
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        rounding = attributes.get("rounding_mode", b"ROUND")
        if not isinstance(rounding, bytes) or rounding.decode("utf-8", "replace").upper() not in _EVEN:
            return None
        if len(node.input) != 4 or any(name not in self.tensors for name in node.input[1:]):
            return None
        scale, zero, width = (np.asarray(tensor_values(self.tensors[name]), np.float32) for name in node.input[1:])
        if width.size != 1 or not 2 <= float(width.reshape(())) <= 16 or float(width.reshape(())) % 1 or (scale <= 0).any():
            return None
        if not np.isfinite(scale).all() or not np.isfinite(zero).all() or (np.rint(zero) != zero).any():
            return None
        return Quant(
            scale, zero, int(width.reshape(())), bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 1))
        )

    def _activation(self, node: NodeProto, quant: Quant) -> bool:
        zero = int(quant.zero_point.reshape(-1)[0]) if quant.zero_point.size == 1 else None
        ends = (-128, 127) if quant.signed else (0, 255)
        if quant.scale.size != 1 or quant.bits > 8 or zero is None or not ends[0] <= zero <= ends[1]:
            return False
        dtype = np.int8 if quant.signed else np.uint8
        output = node.output[0]
        scale, point = self._add(f"{output}_scale", quant.scale.reshape(())), self._add(f"{output}_zero", dtype(zero))
        integers = self._fresh(f"{output}_quantized")
        self._node("QuantizeLinear", [node.input[0], scale, point], integers)
        if (quant.low, quant.high) != ends:
            bounds = [self._add(f"{output}_{end}", dtype(value)) for end, value in (("low", quant.low), ("high", quant.high))]
            clipped = self._fresh(f"{output}_clipped")
            self._node("Clip", [integers, *bounds], clipped)
            integers = clipped
        self._node("DequantizeLinear", [integers, scale, point], output)
        return True

    def _constant(self, node: NodeProto, quant: Quant, values: NDArray[np.float32]) -> bool:
        axis = _axis(quant.scale, values.ndim)
        if not all(_fits(part, values) for part in (quant.scale, quant.zero_point)):
            return False
        wide = quant.bits > 8
        if axis is None or (wide and self.opset < _WIDE_OPSET):
            return False
        codes = quant.integers(values) - quant.zero_point.astype(np.int32)
        limit = 1 << (15 if wide else 7)
        if codes.size and not (codes.min() >= -limit and codes.max() < limit):
            return False
        name, scale = node.output[0], quant.scale.reshape(-1) if axis >= 0 else quant.scale.reshape(())
        data_type = TensorProto.INT16 if wide else TensorProto.INT8
        stored, zero = self._fresh(f"{name}_quantized"), self._fresh(f"{name}_zero_point")
        self.added += [
            integer_tensor(stored, codes, data_type),
            integer_tensor(zero, np.zeros(scale.shape, np.int8), data_type),
        ]
        inputs = [stored, self._add(f"{name}_scale", scale), zero]
        self._node("DequantizeLinear", inputs, name)
        if axis >= 0:
            self.nodes[-1].attribute.append(helper.make_attribute("axis", axis))
        if quant.bits < 8:
            self.bits[name] = quant.bits
        return True

    def _add(self, name: str, values: Any) -> str:
        fresh = self._fresh(name)
        self.added.append(numpy_helper.from_array(np.asarray(values), fresh))
        return fresh

    def _fresh(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate

    def _node(self, op_type: str, inputs: list[str], output: str) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"{output}_{op_type}"))

    def model(self) -> onnx.ModelProto:
        """The model with the nodes that were made, without the constants that only Quant nodes read."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        del model.graph.node[:]
        model.graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in reads(node)} | {value.name for value in self.proto.graph.output}
        kept = [tensor for tensor in self.proto.graph.initializer if tensor.name in read]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *self.added])
        domains = {node.domain for node in self.nodes}
        imports = [entry for entry in self.proto.opset_import if entry.domain != QUANT_DOMAIN or entry.domain in domains]
        del model.opset_import[:]
        model.opset_import.extend(imports)
        metadata = {entry.key: entry.value for entry in self.proto.metadata_props}
        if self.bits:
            metadata[BITS_KEY] = json.dumps({**json.loads(metadata.get(BITS_KEY, "{}")), **self.bits}, sort_keys=True, separators=(",", ":"))
        del model.metadata_props[:]
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model


def _fits(part: NDArray[np.float32], values: NDArray[np.float32]) -> bool:
    """Whether a scale or zero point applies to the values as they are."""
    try:
        return np.broadcast_shapes(part.shape, values.shape) == values.shape or part.size == 1
    except ValueError:
        return False


def _axis(scale: NDArray[np.float32], rank: int) -> int | None:
    """The one axis along which a scale differs, -1 where it is a single one, None where it differs along several."""
    if scale.size == 1:
        return -1
    if scale.ndim != rank:
        return None
    axes = [axis for axis, size in enumerate(scale.shape) if size > 1]
    return axes[0] if len(axes) == 1 else None


def _inside(node: NodeProto) -> bool:
    """Whether a Quant node is in a subgraph of this node."""
    return any(is_quant(inner) or _inside(inner) for graph in subgraphs(node) for inner in graph.node)
