"""Write QONNX: each quantizer of a QDQ model becomes one Quant node, the integers stay the same.

Before:  x_dq = DequantizeLinear(Clip(QuantizeLinear(x, s, z), low, high), s, z)      w = DequantizeLinear(integers, s)
After:   x_dq = Quant(x, s, z, bits)                                                 w = Quant(s * integers, s, z, bits)

A Quant node takes and gives real values (domain qonnx.custom_op.general, inputs x, scale, zeropt, bitwidth), so weights
are stored as float32 multiples of their scale, with the width in the graph instead of in the metadata. A 2-bit channel
that uses -1 .. 2 gets the zero point -1, because the node's 2-bit integers are -2 .. 1.

`file_form` is what is written to disk. It reads its own result back and compares every integer, so that the file holds
what was measured as QDQ. Source: qonnx 1.0.0, custom_op/general/intquant.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.graph.external import tensor_values
from hwc_onnx.graph.model_view import reads
from hwc_onnx.graph.packing import CONTAINER_BITS, integer_values
from hwc_onnx.graph.quant_nodes import QUANT_DOMAIN, quant_nodes, with_qdq
from hwc_onnx.graph.read_qdq import BITS_KEY, read_qdq
from hwc_onnx.quantization.dialects import DIALECT_KEY, DIALECTS

_SIGNED = frozenset({TensorProto.INT8, TensorProto.INT16, TensorProto.INT4})


def file_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as its dialect (`hwc.dialect`) writes it: itself, or with Quant nodes where the dialect has those."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    dialect = DIALECTS.get(metadata.get(DIALECT_KEY, "ort"))
    if dialect is None or not dialect.quant_nodes or quant_nodes(model):
        return model
    return to_quant_nodes(model)


def to_quant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with Quant nodes in place of QuantizeLinear, Clip and DequantizeLinear.

    Raises:
        RuntimeFailure: the model read back does not have the integers that `model` has (our bug).
    """
    written = _Writing(model).model()
    _compare(model, with_qdq(written))
    return written


class _Writing:
    """One model while its quantizers are replaced."""

    def __init__(self, source: onnx.ModelProto) -> None:
        self.source = source
        self.tensors = {tensor.name: tensor for tensor in source.graph.initializer}
        self.maker = {name: node for node in source.graph.node for name in node.output}
        self.widths = read_qdq(source).weight_bits
        self.taken = set(self.tensors) | set(self.maker) | {value.name for value in source.graph.input}
        self.added: list[TensorProto] = []
        self.numbers: dict[float, str] = {}
        self.nodes: list[NodeProto] = []

    def model(self) -> onnx.ModelProto:
        """The new model, with nodes that nothing reads any more left out."""
        for node in self.source.graph.node:
            if not (node.op_type == "DequantizeLinear" and not node.domain and (self._weight(node) or self._activation(node))):
                self.nodes.append(node)
        read = {value.name for value in self.source.graph.output}
        for index in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[index]
            if node.op_type in ("QuantizeLinear", "Clip") and read.isdisjoint(node.output):
                del self.nodes[index]
            else:
                read.update(reads(node))
        model = onnx.ModelProto()
        model.CopyFrom(self.source)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
        inputs = {value.name for value in self.source.graph.input}
        kept = [tensor for tensor in self.source.graph.initializer if tensor.name in read | inputs]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *self.added])
        if not any(entry.domain == QUANT_DOMAIN for entry in model.opset_import):
            model.opset_import.add(domain=QUANT_DOMAIN, version=1)
        metadata = {entry.key: entry.value for entry in model.metadata_props if entry.key != BITS_KEY}
        del model.metadata_props[:]
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model

    def _weight(self, node: NodeProto) -> bool:
        """A DequantizeLinear of stored integers."""
        stored = self.tensors.get(node.input[0])
        if stored is None or stored.data_type not in CONTAINER_BITS or node.input[1] not in self.tensors:
            return False
        name, codes = node.output[0], integer_values(stored)
        scale = np.asarray(tensor_values(self.tensors[node.input[1]]), np.float32)
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1) if scale.ndim else 0
        shape = [1] * codes.ndim
        if scale.ndim:
            shape[axis] = scale.size
        scale = scale.reshape(shape) if scale.ndim else scale
        bits = self.widths.get(name, CONTAINER_BITS[stored.data_type])
        others = tuple(index for index in range(codes.ndim) if index != axis % max(codes.ndim, 1))
        above = codes.max(axis=others, keepdims=True, initial=0) > (1 << (bits - 1)) - 1
        zero = np.where(above, -1.0, 0.0).astype(np.float32)
        zero = zero if zero.any() and scale.ndim else np.zeros((), np.float32)
        values = self._add(f"{name}_values", (codes * scale).astype(np.float32))
        self._quant(name, values, scale, zero, bits, True)
        return True

    def _activation(self, node: NodeProto) -> bool:
        """A DequantizeLinear behind a QuantizeLinear, with a Clip between them or without."""
        maker = self.maker.get(node.input[0])
        clip = maker if maker is not None and maker.op_type == "Clip" else None
        quantize = self.maker.get(clip.input[0]) if clip is not None else maker
        if quantize is None or quantize.op_type != "QuantizeLinear" or list(quantize.input[1:]) != list(node.input[1:]):
            return False
        if len(node.input) < 3 or any(name not in self.tensors for name in node.input[1:]):
            return False
        zero = self.tensors[node.input[2]]
        if zero.data_type not in (TensorProto.INT8, TensorProto.UINT8):
            return False
        signed = zero.data_type in _SIGNED
        bits = CONTAINER_BITS[zero.data_type]
        if clip is not None:
            low, high = (int(numpy_helper.to_array(self.tensors[name])) for name in clip.input[1:3])
            bits = (high - low).bit_length()
            if (low, high) != ((-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)):
                return False
        scale = np.asarray(tensor_values(self.tensors[node.input[1]]), np.float32)
        point = np.asarray(numpy_helper.to_array(zero), np.float32)
        self._quant(node.output[0], quantize.input[0], scale, point, bits, signed)
        return True

    def _quant(
        self, output: str, source: str, scale: NDArray[np.float32], zero: NDArray[np.float32], bits: int, signed: bool
    ) -> None:
        point = self._add(f"{output}_zeropt", zero) if zero.ndim else self._number(float(zero))
        inputs = [source, self._add(f"{output}_scale", scale), point, self._number(float(bits))]
        attributes: dict[str, Any] = {"signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
        self.nodes.append(
            helper.make_node("Quant", inputs, [output], name=f"{output}_Quant", domain=QUANT_DOMAIN, **attributes)
        )

    def _number(self, value: float) -> str:
        if value not in self.numbers:
            self.numbers[value] = self._add(f"float_{value:g}", np.array(value, np.float32))
        return self.numbers[value]

    def _add(self, name: str, values: NDArray[np.float32]) -> str:
        candidate, number = name, 1
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        self.added.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), candidate))
        return candidate


def _compare(model: onnx.ModelProto, again: onnx.ModelProto) -> None:
    """RuntimeFailure unless both models have the same quantizers: integers, scales, zero points and bounds."""
    before, after = _quantizers(model), _quantizers(again)
    for name in sorted(set(before) | set(after)):
        first, second = before.get(name, {}), after.get(name, {})
        differing = [what for what in first.keys() | second.keys() if not _equal(first.get(what), second.get(what))]
        if differing:
            raise RuntimeFailure(
                f"tensor '{name}': its Quant node has another {', '.join(sorted(differing))} than what was measured; please "
                "report this, and write the model in dialect ort meanwhile"
            )


def _quantizers(model: onnx.ModelProto) -> dict[str, dict[str, NDArray[Any]]]:
    """By the name that DequantizeLinear gives: integers of a constant, scale, zero point, and bounds of a Clip."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    maker = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3 or any(name not in tensors for name in node.input[1:]):
            continue
        facts: dict[str, NDArray[Any]] = {"scale": np.asarray(tensor_values(tensors[node.input[1]]), np.float32).reshape(-1)}
        if node.input[0] in tensors:
            facts["integers"] = integer_values(tensors[node.input[0]])
        else:
            facts["zero point"] = integer_values(tensors[node.input[2]]).reshape(-1)
            before = maker.get(node.input[0])
            if before is not None and before.op_type == "Clip":
                facts["bounds"] = np.array([int(numpy_helper.to_array(tensors[name])) for name in before.input[1:3]])
        found[node.output[0]] = facts
    return found


def _equal(first: NDArray[Any] | None, second: NDArray[Any] | None) -> bool:
    return first is not None and second is not None and first.shape == second.shape and bool(np.array_equal(first, second))
