"""Read quantizers back: a QDQ file becomes the float-like model it stands for, and the widths it was written with.

Structure decides, names do not. `x -> QuantizeLinear -> [Clip] -> DequantizeLinear -> y` means that x is stored as
integers, and y is again x; `integers -> [Clip] -> DequantizeLinear -> w` means that w is a weight. The Clip
limits the integers to a narrower width than their container. A width declared in the metadata (`hwc.bits`) is believed
only where every stored integer fits it. A bias that follows its layer as a separate Add goes back into the layer.

A model without quantizers comes back as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from hwc_onnx.graph.external import any_mapped, keep, tensor_values
from hwc_onnx.graph.model_view import reads
from hwc_onnx.graph.packing import CONTAINER_BITS, codes_fit, integer_values

logger = logging.getLogger(__name__)

BITS_KEY = "hwc.bits"
"""Metadata: JSON {weight name: width} where the width is narrower than the container."""

_COMPUTING = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class LogicalModel:
    """What a quantized file computes, in float terms.

    `proto` has the names of the model before quantization: tensors keep theirs, a weight is an initializer named as
    its DequantizeLinear's output. `weight_bits` and `weight_density` (share of integers that are not the zero point)
    are by weight name, `activation_bits` by tensor name; what is not in them is float. `file_bits` is the width each
    weight's container has in the file, `weight_scale` what one step of its integers is worth, shaped to broadcast against it
    (missing where blocks of one channel differ).
    """

    proto: onnx.ModelProto
    weight_bits: Mapping[str, int] = field(default_factory=dict)
    weight_density: Mapping[str, float] = field(default_factory=dict)
    activation_bits: Mapping[str, int] = field(default_factory=dict)
    file_bits: Mapping[str, int] = field(default_factory=dict)
    weight_scale: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def read_qdq(proto: onnx.ModelProto) -> LogicalModel:
    """The logical model of `proto`, which is not changed. Quantizers that cannot be understood stay in the graph."""
    if not any(node.op_type == "DequantizeLinear" for node in proto.graph.node):
        return LogicalModel(proto)
    return _Reader(proto).read()


class _Reader:
    """One reading of one model."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.tensors[node.output[0]] = node.attribute[0].t
        self.maker = {name: node for node in graph.node for name in node.output}
        self.outputs = {value.name for value in graph.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        inner = (name for node in graph.node for name in reads(node)[len([entry for entry in node.input if entry]) :])
        self.pinned = self.outputs.union(inner)
        self.declared = _declared_bits(proto)
        self.large = any_mapped(proto)
        self.weights: dict[str, TensorProto] = {}
        self.weight_bits: dict[str, int] = {}
        self.file_bits: dict[str, int] = {}
        self.weight_density: dict[str, float] = {}
        self.weight_scale: dict[str, NDArray[Any]] = {}
        self.activation_bits: dict[str, int] = {}
        self.alias: dict[str, str] = {}
        self.dropped: set[int] = set()

    def read(self) -> LogicalModel:
        """Take the quantizers out and build the model."""
        for node in self.proto.graph.node:
            if node.op_type == "DequantizeLinear" and node.output[0] not in self.pinned:
                if node.input[0] in self.tensors:
                    self._constant(node, node.input[0])
                else:
                    self._restored(node)
        return LogicalModel(
            self._assemble(),
            self.weight_bits,
            self.weight_density,
            self.activation_bits,
            self.file_bits,
            self.weight_scale,
        )

    def _constant(self, node: NodeProto, source: str) -> None:
        """A DequantizeLinear of stored integers: a weight, or a bias that someone wrote as INT32."""
        scale, zero = self._array(node, 1), self._array(node, 2)
        stored = self.tensors[source]
        if scale is None or stored.data_type not in CONTAINER_BITS:
            return
        codes = integer_values(stored)
        self._take_weight(node, codes, scale, zero, CONTAINER_BITS[stored.data_type])

    def _clipped_constant(self, clip: NodeProto, node: NodeProto) -> None:
        """Stored integers behind a Clip, whose bounds say how wide they are."""
        scale, zero, stored = self._array(node, 1), self._array(node, 2), self.tensors[clip.input[0]]
        bounds, levels = self._bounds(clip), self._levels(clip)
        if scale is None or bounds is None or levels is None or stored.data_type not in CONTAINER_BITS:
            return
        container = CONTAINER_BITS[stored.data_type]
        codes = np.clip(integer_values(stored), *bounds)
        self._take_weight(node, codes, scale, zero, container, min(container, max(levels - 1, 1).bit_length()))

    def _take_weight(
        self,
        node: NodeProto,
        codes: NDArray[np.int32],
        scale: NDArray[Any],
        zero: NDArray[Any] | None,
        container: int,
        width: int | None = None,
    ) -> None:
        name = node.output[0]
        axis, block = _attribute(node, "axis", 1), _attribute(node, "block_size", 0)
        offset = np.zeros((), np.int32) if zero is None else zero
        if not (_matches(scale, codes.shape, axis, block) and _matches(offset, codes.shape, axis, block)):
            return
        shifted = codes - _spread(offset, codes.shape, axis, block)
        values = (shifted * _spread(scale, codes.shape, axis, block)).astype(np.float32)
        self.weights[name] = keep(name, values, self.large)
        self.dropped.add(id(node))
        bits = self._checked_bits(name, codes, axis if scale.ndim else None, width or container)
        if bits <= 8:
            self.file_bits[name] = container
            self.weight_bits[name] = bits
            self.weight_density[name] = float(np.count_nonzero(shifted)) / max(shifted.size, 1)
            if not block:
                self.weight_scale[name] = _spread(scale, codes.shape, axis, block)

    def _checked_bits(self, name: str, codes: NDArray[np.int32], axis: int | None, container: int) -> int:
        bits = self.declared.get(name, container)
        if not 2 <= bits <= container:
            return container
        if bits < container and not codes_fit(codes, bits, axis):
            logger.warning(
                "weight '%s': declared %d bits, but its integers need %d; the declaration is ignored",
                name,
                bits,
                container,
            )
            return container
        return bits

    def _restored(self, node: NodeProto) -> None:
        """A DequantizeLinear of integers that were made from a float tensor (or a float weight) just before."""
        clip = self.maker.get(node.input[0])
        levels = None
        quantize = clip
        if clip is not None and clip.op_type == "Clip":
            if clip.input[0] in self.tensors:
                self._clipped_constant(clip, node)
                return
            levels = self._levels(clip)
            quantize = self.maker.get(clip.input[0])
            if levels is None:
                return
        if quantize is not None and quantize.op_type == "DynamicQuantizeLinear":
            if list(node.input) == list(quantize.output):
                self._take_activation(quantize.input[0], node, 8)
            return
        if quantize is None or quantize.op_type != "QuantizeLinear" or not self._same_grid(quantize, node):
            return
        source = quantize.input[0]
        if source in self.tensors:
            self._quantized_constant(quantize, node)
            return
        container = self._container(quantize)
        if container is None:
            return
        self._take_activation(
            source, node, container if levels is None else min(container, max(levels - 1, 1).bit_length())
        )

    def _take_activation(self, source: str, node: NodeProto, bits: int) -> None:
        """`source` is stored with `bits` bits, and what `node` restores is the same tensor."""
        name = self.alias.get(source, source)
        self.activation_bits[name] = min(bits, self.activation_bits.get(name, 16))
        self.alias[node.output[0]] = name
        self.dropped.add(id(node))

    def _quantized_constant(self, quantize: NodeProto, node: NodeProto) -> None:
        """A float weight that is quantized inside the graph: what it will become is what it is."""
        scale, zero = self._array(node, 1), self._array(node, 2)
        container = self._container(quantize)
        if scale is None or container is None:
            return
        values = tensor_values(self.tensors[quantize.input[0]]).astype(np.float32)
        axis, block = _attribute(node, "axis", 1), _attribute(node, "block_size", 0)
        offset = np.zeros((), np.int32) if zero is None else zero
        if not (_matches(scale, values.shape, axis, block) and _matches(offset, values.shape, axis, block)):
            return
        signed = self._signed(quantize)
        low, high = (-(1 << (container - 1)), (1 << (container - 1)) - 1) if signed else (0, (1 << container) - 1)
        codes = np.rint(values / _spread(scale, values.shape, axis, block)) + _spread(offset, values.shape, axis, block)
        self._take_weight(node, np.clip(codes, low, high).astype(np.int32), scale, zero, container)

    def _levels(self, clip: NodeProto) -> int | None:
        """How many integers a Clip lets through; None when its bounds are not constants."""
        bounds = self._bounds(clip)
        return None if bounds is None else bounds[1] - bounds[0] + 1

    def _bounds(self, clip: NodeProto) -> tuple[int, int] | None:
        """The constant integers between which a Clip holds its input."""
        bounds = [self._array(clip, 1), self._array(clip, 2)]
        if any(bound is None or not np.issubdtype(bound.dtype, np.integer) for bound in bounds):
            return None
        low, high = (int(bound.reshape(())) for bound in bounds if bound is not None)
        return low, high

    def _same_grid(self, quantize: NodeProto, dequantize: NodeProto) -> bool:
        """Whether both nodes use equal scales and zero points, so that together they only round."""
        for position in (1, 2):
            first, second = self._array(quantize, position), self._array(dequantize, position)
            if first is None or second is None:
                if position == 1 or _names(quantize, position) != _names(dequantize, position):
                    return False
            elif not np.array_equal(first, second):
                return False
        return True

    def _container(self, quantize: NodeProto) -> int | None:
        """Width of the integers a QuantizeLinear makes (its zero point's type; UINT8 without one)."""
        return CONTAINER_BITS.get(self._data_type(quantize))

    def _signed(self, quantize: NodeProto) -> bool:
        return self._data_type(quantize) in (TensorProto.INT4, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32)

    def _data_type(self, quantize: NodeProto) -> int:
        zero = _names(quantize, 2)
        if zero in self.tensors:
            return int(self.tensors[zero].data_type)
        return _attribute(quantize, "output_dtype", 0) or int(TensorProto.UINT8)

    def _array(self, node: NodeProto, position: int) -> NDArray[Any] | None:
        name = _names(node, position)
        if name not in self.tensors:
            return None
        tensor = self.tensors[name]
        if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
            return integer_values(tensor)
        return tensor_values(tensor)

    def _assemble(self) -> onnx.ModelProto:
        """The model without what was taken out, constants that nothing reads any more included."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        graph = model.graph
        kept = []
        for original, node in zip(self.proto.graph.node, graph.node, strict=True):
            if id(original) not in self.dropped:
                for position, name in enumerate(node.input):
                    if name in self.alias:
                        node.input[position] = self.alias[name]
                kept.append(node)
        kept = self._fold_biases(kept)
        kept = _live(kept, self.outputs)
        used = {name for node in kept for name in reads(node)} | self.outputs
        copies = [_copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)
        tensors = [tensor for tensor in graph.initializer if tensor.name in used and tensor.name not in self.weights]
        tensors += [tensor for name, tensor in self.weights.items() if name in used]
        initializers = [_copy_tensor(tensor) for tensor in tensors]
        del graph.initializer[:]
        graph.initializer.extend(initializers)
        return model

    def _fold_biases(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """Layers whose constant per-channel Add follows them get it back as their bias, under the Add's output name."""
        readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        removed: set[int] = set()
        for node in nodes:
            if node.op_type not in _COMPUTING or len(node.input) != 2 or node.input[1] not in self.weight_bits:
                continue
            output = node.output[0]
            following = readers.get(output, [])
            if len(following) != 1 or following[0].op_type != "Add" or output in self.outputs:
                continue
            add = following[0]
            bias = add.input[1] if add.input[0] == output else add.input[0]
            flat = self._channel_bias(node, bias)
            if flat is None or len(readers[bias]) != 1:
                continue
            self.weights[bias] = numpy_helper.from_array(flat, bias)
            node.input.append(bias)
            node.output[0] = add.output[0]
            removed.add(id(add))
        return [node for node in nodes if id(node) not in removed]

    def _channel_bias(self, node: NodeProto, name: str) -> NDArray[np.float32] | None:
        """The constant `name` as [channels], if it adds one number per output channel of `node`."""
        tensor = self.weights.get(name, self.tensors.get(name))
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            return None
        values = tensor_values(tensor)
        shape = self.weights[node.input[1]].dims
        if node.op_type == "Gemm":
            expected: tuple[int, ...] = (1, values.size)
        else:
            expected = (1, values.size) + (1,) * (len(shape) - 2)
        return values.reshape(-1).astype(np.float32) if values.shape == expected else None


def _declared_bits(proto: onnx.ModelProto) -> dict[str, int]:
    """The declared widths; anything that is not a JSON object of integers counts as nothing declared."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == BITS_KEY), "{}")
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: bits for name, bits in found.items() if isinstance(bits, int) and not isinstance(bits, bool)}


def _matches(values: NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> bool:
    """Whether parameters have the size that a tensor of `shape` needs: one, one per channel, or one per block."""
    if values.size == 1:
        return True
    if not -len(shape) <= axis < len(shape):
        return False
    if block:
        expected = [*shape]
        expected[axis] = -(-shape[axis] // block)
        return values.shape == tuple(expected)
    return values.shape == (shape[axis],)


def _spread(values: NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> NDArray[Any]:
    """Per-tensor, per-channel or per-block parameters shaped to broadcast against a tensor of `shape`."""
    if values.size == 1:
        return values.reshape(())
    if block:
        return np.repeat(values, block, axis=axis).take(range(shape[axis]), axis=axis)
    broadcast = [1] * len(shape)
    broadcast[axis] = -1
    return values.reshape(broadcast)


def _live(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """The nodes that the model's outputs depend on."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            needed.update(reads(node))
            kept.append(node)
    return kept[::-1]


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _names(node: NodeProto, position: int) -> str:
    return str(node.input[position]) if len(node.input) > position else ""


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _copy_tensor(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy
