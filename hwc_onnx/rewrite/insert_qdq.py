"""Write a plan's integers into the model: weights become DequantizeLinear(integers), stored tensors get one quantizer.

Before:  y = Conv(x, w, b)
After:   x_dq = DequantizeLinear(Clip(QuantizeLinear(x)))        one per stored tensor, where it is made
         w    = DequantizeLinear(w_quantized)                    same name as the float initializer it replaces
         y    = Conv(x_dq, w, b)

The Clip works on the integers (form QCDQ of Pappalardo et al., "QONNX", 2022, section III) and is there only when the
width is below that of the 8-bit container. It commutes with rounding, so it gives the same numbers as a Clip of real
values ahead of QuantizeLinear; but there it would come between the layer and its quantizer, and ONNX Runtime would run
the layer in float.

Value-preserving nodes (MaxPool, Reshape, Transpose, Concat ...) have a pair on both sides, with the same parameters:
quantizing twice with equal parameters changes nothing, every stored tensor shows its own width, and ONNX Runtime runs
such a node on the integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from hwc_onnx.errors import PlanError
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.model_view import captured, subgraphs
from hwc_onnx.graph.packing import CONTAINER_BITS
from hwc_onnx.graph.read_qdq import BITS_KEY
from hwc_onnx.quantization.dialects import DIALECT_KEY, Dialect, get_dialect
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams, quantize
from hwc_onnx.rewrite.cleanup import set_metadata
from hwc_onnx.rewrite.dialect_forms import block_weights, clip_weights, widen_left_weights
from hwc_onnx.rewrite.layer_weights import write_layer
from hwc_onnx.rewrite.model_builder import ModelBuilder
from hwc_onnx.rewrite.opset import model_opset, raise_opset

Purpose = Literal["file", "measure"]

LOWEST_OPSET = 13
"""Per-axis DequantizeLinear."""

WIDE_OPSET = 21
"""DequantizeLinear of INT16."""


def insert_qdq(
    proto: onnx.ModelProto,
    graph: LayerGraph,
    weights: Mapping[str, QuantizedWeight],
    activations: Mapping[str, QuantParams],
    dialect: str = "ort",
    purpose: Purpose = "file",
) -> onnx.ModelProto:
    """A new model in which `weights` (by layer key) and `activations` (by stored tensor) are quantized.

    The input model is not changed; the checker is not run on the result. Purpose "measure" is for candidates: it
    computes the same, but is built, opened and run faster, and its integers cannot be read back. Weights stay in INT8
    and the opset as it is; the weight of a convolution whose sum leaves in float (into a residual Add, say) is stored
    dequantized, because ONNX Runtime has no integer kernel for it and is slower with a weight that it must restore; a
    Relu or Clip before a quantizer limits the integers behind it instead, because it would keep the layer in float.

    Raises:
        PlanError: a layer or tensor that the model does not have, or a width that the dialect cannot write.
    """
    accepted = get_dialect(dialect)
    layers = {layer.key: layer for layer in graph.layers}
    _check_widths(layers, weights, activations, accepted)
    shapes = {name: graph.tensors[name].shape for name in graph.inputs if name in graph.tensors}
    carrier, types = _carrier(proto, layers, weights, activations, accepted, purpose, shapes)
    builder = ModelBuilder(carrier)
    _check_tensors(builder, activations)
    renamed: dict[str, str] = {}
    bits: dict[str, int] = {}
    for name in builder.inputs:
        if name in activations:
            renamed[name] = _write_quantizer(builder, name, activations[name], accepted)
    for node in carrier.graph.node:
        limits = _integer_limits(builder, node, activations) if purpose == "measure" else None
        if limits is not None:
            tensor = node.output[0]
            renamed[tensor] = _write_quantizer(builder, tensor, activations[tensor], accepted, node.input[0], limits)
            continue
        copy = NodeProto()
        copy.CopyFrom(node)
        _rename_reads(copy, renamed)
        key = node.output[0] if node.output else ""
        if key in weights:
            source = activations.get(layers[key].inputs[0])
            scale = None if source is None else float(source.scale.reshape(()))
            restored = purpose == "measure" and not _runs_on_integers(builder, node, activations)
            stored = write_layer(builder, copy, layers[key], weights[key], scale, types, restored)
            params = weights[key].params
            if params is not None and params.bits < CONTAINER_BITS[types[params.bits]]:
                bits.update(dict.fromkeys(stored, params.bits))
        else:
            builder.nodes.append(copy)
        for name in node.output:
            if name in activations:
                renamed[name] = _write_quantizer(builder, name, activations[name], accepted)
    model = builder.build({BITS_KEY: bits} if bits else {})
    return model if purpose == "measure" else _in_form(model, accepted)


def _in_form(model: onnx.ModelProto, dialect: Dialect) -> onnx.ModelProto:
    """The model in the dialect's form as far as ONNX Runtime opens it; Quant nodes are left to the writing of the file."""
    if dialect.clip_weights:
        model = clip_weights(model)
    if dialect.block_sizes:
        model = block_weights(model, dialect.block_sizes)
    if dialect.wide_left_weights:
        model = widen_left_weights(model)
    if dialect.name != "ort":
        set_metadata(model, {entry.key: entry.value for entry in model.metadata_props} | {DIALECT_KEY: dialect.name})
    return model


def _write_quantizer(
    builder: ModelBuilder,
    name: str,
    params: QuantParams,
    dialect: Dialect,
    source: str | None = None,
    limits: tuple[int, int] | None = None,
) -> str:
    """Append the quantizer of tensor `name`; the name of what later nodes read.

    The values are found in `source` if the tensor itself is not made; the integers are held to `limits`, which are
    those of the width if None.
    """
    scale = builder.fresh(name + "_scale")
    builder.add_float(scale, params.scale.reshape(()))
    zero = builder.integer_scalar(int(params.zero_point.reshape(())), params.signed)
    integers, restored = builder.fresh(name + "_quantized"), builder.fresh(name + "_dq")
    builder.add_node("QuantizeLinear", [source or name, scale, zero], integers)
    low, high = limits or (params.qmin, params.qmax)
    if dialect.clip and (low, high) != ((-128, 127) if params.signed else (0, 255)):
        bounds = [builder.integer_scalar(low, params.signed), builder.integer_scalar(high, params.signed)]
        clipped = builder.fresh(name + "_clipped")
        builder.add_node("Clip", [integers, *bounds], clipped)
        integers = clipped
    builder.add_node("DequantizeLinear", [integers, scale, zero], restored)
    return restored


def _runs_on_integers(builder: ModelBuilder, node: NodeProto, activations: Mapping[str, QuantParams]) -> bool:
    """Whether ONNX Runtime has an integer kernel for this layer.

    It has one for matrix products; for convolutions only where the result reaches a quantizer through nothing but Relu
    and Clip.
    """
    tensor = node.output[0]
    while node.op_type in ("Conv", "ConvTranspose") and tensor not in activations:
        readers = builder.readers.get(tensor, [])
        if len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip"):
            return False
        tensor = readers[0].output[0]
    return True


def _integer_limits(
    builder: ModelBuilder, node: NodeProto, activations: Mapping[str, QuantParams]
) -> tuple[int, int] | None:
    """The integers that a Relu or Clip just before a quantizer lets through; None where there is no such node.

    Rounding is monotone, so limiting the integers to the rounded bounds equals rounding what was limited.
    """
    if node.op_type not in ("Relu", "Clip") or node.output[0] not in activations:
        return None
    source = node.input[0]
    if len(builder.readers[source]) > 1 or source in builder.outputs or source in activations:
        return None
    low, high = (0.0, math.inf) if node.op_type == "Relu" else (builder.bound(node, 1), builder.bound(node, 2))
    if math.isnan(low) or math.isnan(high) or low > high:
        return None
    first, last = quantize(np.array([low, high], np.float32), activations[node.output[0]])
    return int(first), int(last)


def _rename_reads(node: NodeProto, renamed: Mapping[str, str]) -> None:
    """Let `node`, and the subgraphs it owns, read the new names."""
    for position, name in enumerate(node.input):
        if name in renamed:
            node.input[position] = renamed[name]
    for graph in subgraphs(node):
        inner = {name: new for name, new in renamed.items() if name in captured(graph)}
        for inside in graph.node:
            _rename_reads(inside, inner)
        for value in graph.output:
            value.name = inner.get(value.name, value.name)


def _carrier(
    proto: onnx.ModelProto,
    layers: Mapping[str, Layer],
    weights: Mapping[str, QuantizedWeight],
    activations: Mapping[str, QuantParams],
    dialect: Dialect,
    purpose: Purpose,
    shapes: Mapping[str, Sequence[int]],
) -> tuple[onnx.ModelProto, dict[int, int]]:
    """The model at an opset that carries the plan, and the ONNX type of each weight width used."""
    widths = {weight.params.bits for weight in weights.values() if weight.params is not None}
    wide = any(weight.params is None and layers[key].inputs[0] in activations for key, weight in weights.items())
    lowest = LOWEST_OPSET if widths or activations else 1
    for table in (dialect.weight_types, dialect.fallback_types) if purpose == "file" else (dialect.fallback_types,):
        needed = max([WIDE_OPSET if wide else lowest, *(table[bits][1] for bits in widths)])
        raised = raise_opset(proto, needed, check=purpose == "file", shapes=shapes)
        if raised is not None:
            types = {bits: table[bits][0] for bits in widths}
            return raised, {**types, 16: int(TensorProto.INT16)} if wide else types
    raise PlanError(
        f"the model's opset {model_opset(proto)} cannot be raised to {WIDE_OPSET if wide else LOWEST_OPSET}, which "
        f"{'16-bit weights behind quantized inputs' if wide else 'quantized weights'} need; export the model again "
        "with a later opset"
    )


def _check_widths(
    layers: Mapping[str, Layer],
    weights: Mapping[str, QuantizedWeight],
    activations: Mapping[str, QuantParams],
    dialect: Dialect,
) -> None:
    for key, weight in weights.items():
        if key not in layers or layers[key].weight is None:
            raise PlanError(f"layer '{key}': the model has no layer with a weight of this name")
        if weight.params is not None and weight.params.bits not in dialect.weight_types:
            raise PlanError(
                f"layer '{key}': weight width {weight.params.bits}; dialect '{dialect.name}' writes "
                f"{', '.join(map(str, dialect.weight_bits))} bits, or 16 to leave the weight as it is"
            )
        if weight.params is None and layers[key].inputs[0] in activations and not dialect.wide_weights:
            raise PlanError(
                f"layer '{key}': a 16-bit weight behind an input of {activations[layers[key].inputs[0]].bits} bits; "
                f"dialect '{dialect.name}' has no 16-bit integers; give the layer a weight of at most 8 bits, or leave its "
                "input at 16 bits too"
            )
    for name, params in activations.items():
        if params.bits not in dialect.activation_bits:
            raise PlanError(
                f"tensor '{name}': activation width {params.bits}; dialect '{dialect.name}' writes "
                f"{', '.join(map(str, dialect.activation_bits))} bits, or 16 to leave the tensor as it is; change the plan's "
                "width, or choose another dialect"
            )
        if int(params.zero_point.reshape(())) and not dialect.zero_points:
            raise PlanError(
                f"tensor '{name}': zero point {int(params.zero_point)}; dialect '{dialect.name}' allows only 0"
            )
        if not params.signed and not dialect.zero_points:
            raise PlanError(f"tensor '{name}': unsigned integers; dialect '{dialect.name}' allows only signed ones")


def _check_tensors(builder: ModelBuilder, activations: Mapping[str, QuantParams]) -> None:
    made = builder.made()
    for name in activations:
        if name not in made:
            raise PlanError(f"tensor '{name}': no node of the model makes it, so it cannot be quantized; leave it out of the plan")
