"""TensorRT's published rules for quantized ONNX files, checked on the file's structure: no TensorRT runs here.

Sources (docs/dialects.md quotes what each says): NVIDIA, TensorRT documentation, "Quantization Schemes" and "Explicit
Quantization"; TensorRT C++ API, IQuantizeLayer and IDequantizeLayer; onnx-tensorrt at commit 96e7811 (2024-06-17),
docs/operators.md and `QuantDequantLinearHelper` of onnxOpImporters.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from hwc_onnx.graph.external import tensor_values
from hwc_onnx.graph.structure import label

BLOCK_SIZES = (64, 128)
"""Elements that share a scale in INT4 ("Quantization Schemes": supported block sizes)."""

_INTEGERS = frozenset({TensorProto.INT8, TensorProto.INT4})
_STANDARD = frozenset({"", "ai.onnx"})
_BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(frozen=True)
class Rule:
    """One rule: its short name, what it demands, and the nodes that break it, each with the reason."""

    name: str
    demand: str
    broken: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Whether no node breaks it."""
        return not self.broken


def check_rules(proto: onnx.ModelProto) -> tuple[Rule, ...]:
    """Every rule, met or with the nodes that break it; a file without quantizers breaks none."""
    facts = _Facts(proto)
    return tuple(Rule(name, demand, tuple(find(facts))) for name, (demand, find) in _RULES.items())


class _Facts:
    """What the rules look at."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.nodes = list(graph.node)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.tensors[node.output[0]] = node.attribute[0].t
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    @property
    def quantizers(self) -> Iterator[NodeProto]:
        """QuantizeLinear and DequantizeLinear nodes."""
        return (node for node in self.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not node.domain)

    def array(self, node: NodeProto, position: int) -> NDArray[Any] | None:
        """A constant input; None where there is none or it is computed."""
        name = node.input[position] if len(node.input) > position else ""
        tensor = self.tensors.get(name)
        return None if tensor is None else np.asarray(tensor_values(tensor))

    def data_type(self, node: NodeProto) -> int:
        """ONNX type of the integers of a quantizer; UINT8 where nothing states one, as ONNX has it."""
        if len(node.input) > 2 and node.input[2] in self.tensors:
            return int(self.tensors[node.input[2]].data_type)
        if node.op_type == "DequantizeLinear" and node.input[0] in self.tensors:
            return int(self.tensors[node.input[0]].data_type)
        maker = self.maker.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            return self.data_type(maker)
        return _attribute(node, "output_dtype", int(TensorProto.UINT8))

    def constant(self, node: NodeProto) -> TensorProto | None:
        """The stored tensor behind a quantizer, perhaps through a Clip: integers or, ahead of a QuantizeLinear, floats."""
        maker = self.maker.get(node.input[0])
        while maker is not None and maker.op_type in ("QuantizeLinear", "Clip"):
            node, maker = maker, self.maker.get(maker.input[0])
        found: TensorProto | None = self.tensors.get(node.input[0])
        return found


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _foreign(facts: _Facts) -> Iterator[str]:
    for node in facts.nodes:
        if node.domain not in _STANDARD:
            yield f"{label(node)}: domain '{node.domain}'"


def _types(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        found = facts.data_type(node)
        if found not in _INTEGERS:
            yield f"{label(node)}: {TensorProto.DataType.Name(found)}"


def _zero_points(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        if len(node.input) > 2 and node.input[2]:
            zero = facts.array(node, 2)
            if zero is None:
                yield f"{label(node)}: computed"
            elif np.any(zero.astype(np.int64) != 0):
                yield f"{label(node)}: {int(zero.astype(np.int64).reshape(-1)[np.flatnonzero(zero)[0]])}"


def _scales(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        scale = facts.array(node, 1)
        if scale is None:
            yield f"{label(node)}: computed"
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield f"{label(node)}: {float(scale.reshape(-1)[np.argmin(scale)]):g}"


def _direct(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        if node.op_type == "QuantizeLinear":
            others = [reader for reader in facts.readers.get(node.output[0], []) if reader.op_type != "DequantizeLinear"]
        else:
            maker = facts.maker.get(node.input[0])
            others = [maker] if maker is not None and maker.op_type not in ("QuantizeLinear", "Constant") else []
        yield from (f"{label(other)} between QuantizeLinear and DequantizeLinear" for other in others[:1])


def _activations(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        if facts.constant(node) is not None:
            continue
        scale = facts.array(node, 1)
        if scale is not None and scale.size != 1:
            yield f"{label(node)}: {scale.size} scales"
        elif facts.data_type(node) == TensorProto.INT4:
            yield f"{label(node)}: INT4"


def _weights(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        stored, scale = facts.constant(node), facts.array(node, 1)
        if stored is None or scale is None or scale.size == 1 or facts.data_type(node) == TensorProto.INT4:
            continue
        axis, rank = _attribute(node, "axis", 1), len(stored.dims)
        if scale.ndim != 1 or not -rank <= axis < rank or stored.dims[axis] != scale.size:
            yield f"{label(node)}: {scale.size} scales on axis {axis} of {list(stored.dims)}"
            continue
        for reader in facts.readers.get(node.output[0], []) if node.op_type == "DequantizeLinear" else []:
            expected = _output_axis(reader, node.output[0], rank)
            if expected is not None and expected != axis % rank:
                yield f"{label(node)}: scales on axis {axis}, {label(reader)} has its output channels on axis {expected}"


def _output_axis(reader: NodeProto, weight: str, rank: int) -> int | None:
    """The axis of a layer's weight that holds its output channels; None where the node is no such layer."""
    if reader.op_type in ("Conv", "ConvTranspose") and reader.input[1] == weight:
        return 0 if reader.op_type == "Conv" else 1
    if reader.op_type == "Gemm" and reader.input[1] == weight:
        return 0 if _attribute(reader, "transB", 0) else 1
    if reader.op_type == "MatMul" and rank > 1:
        return rank - 1 if reader.input[1] == weight else rank - 2
    return None


def _int4(facts: _Facts) -> Iterator[str]:
    for node in facts.quantizers:
        stored, scale = facts.constant(node), facts.array(node, 1)
        if facts.data_type(node) != TensorProto.INT4 or stored is None or scale is None:
            continue
        dims = list(stored.dims)
        if dims and dims[-1] % 2:
            yield f"{label(node)}: last axis of {dims} is odd"
        ratios = [size / blocks if blocks else 0.0 for size, blocks in zip(dims, scale.shape, strict=False)]
        blocked = [axis for axis, ratio in enumerate(ratios) if ratio != 1]
        if scale.ndim != len(dims) or len(blocked) != 1:
            yield f"{label(node)}: scales {list(scale.shape)} for {dims}, one axis has to be divided into blocks"
        elif ratios[blocked[0]] not in BLOCK_SIZES or blocked[0] < len(dims) - 2:
            yield f"{label(node)}: blocks of {ratios[blocked[0]]:g} on axis {blocked[0]} of {dims}"


def _biases(facts: _Facts) -> Iterator[str]:
    for node in facts.nodes:
        if node.op_type in _BIASED and len(node.input) > 2 and node.input[2]:
            maker = facts.maker.get(node.input[2])
            if maker is not None and maker.op_type == "DequantizeLinear":
                yield f"{label(node)}: bias '{node.input[2]}' is {TensorProto.DataType.Name(facts.data_type(maker))}"


_RULES: Mapping[str, tuple[str, Callable[[_Facts], Iterator[str]]]] = MappingProxyType(
    {
        "operators": ("operators of the ONNX standard alone", _foreign),
        "integer types": ("integers are INT8 or INT4, never UINT8", _types),
        "zero points": ("zero points are constant zeros", _zero_points),
        "scales": ("scales are positive constants", _scales),
        "placement": ("nothing stands between QuantizeLinear and DequantizeLinear", _direct),
        "activations": ("activations are INT8 with one scale for the tensor", _activations),
        "weights": ("INT8 weights have one scale, or one for each output channel", _weights),
        "INT4 blocks": ("INT4 is for constants, one scale for 64 or 128 elements of one of the last two axes", _int4),
        "biases": ("biases are in float", _biases),
    }
)
