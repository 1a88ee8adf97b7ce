"""Write one layer's weight and bias.

The weight w becomes DequantizeLinear(integers, scale) under the same name. What is done beyond that keeps every
optimisation level of ONNX Runtime (observed on 1.32) at the same result:

- zero points are written out, one tensor per weight: where they are shared, the kernels chosen by
  `session.x64quantprecision` cannot be set up and the session does not open;
- the bias lies on the INT32 grid that the runtime rounds it to (quantization/bias_grid.py); all-zero channels take a
  scale that carries it; where another channel's scale cannot, the bias becomes a separate Add, which is exact. The Add
  behind a MatMul is no refuge (both become a Gemm, and the constant its bias), so there the channel is rounded again
  with the smallest scale that carries the bias; what this changes is below 2^-31 of the bias per product;
- where the layer's scales are powers of two, so is what replaces them;
- a weight left at 16 bits behind a quantized input is stored as INT16: a float one would be rounded to 8 bits, per
  tensor, by the runtime itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hwc_onnx.errors import PlanError
from hwc_onnx.graph.layer_graph import Layer
from hwc_onnx.quantization.bias_grid import bias_steps, round_bias, scale_floor
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.quantization.weights import minmax_scales, settle_scales, to_rows
from hwc_onnx.rewrite.model_builder import ModelBuilder

Real = TypeVar("Real", np.float32, np.float64)

WIDE_LIMIT = 32767
"""Largest code of a 16-bit weight."""


def write_layer(
    builder: ModelBuilder,
    node: NodeProto,
    layer: Layer,
    weight: QuantizedWeight,
    input_scale: float | None,
    types: Mapping[int, int],
    restored: bool = False,
) -> tuple[str, ...]:
    """Append `node`, which the builder keeps, with its new weight and bias; returns the weight's names in the new model.

    Args:
        builder: the model being assembled.
        node: a copy of the layer's node; its activation inputs are already final.
        layer: what the node is.
        weight: codes in the ONNX layout, or float values at 16 bits.
        input_scale: scale of the layer's input quantizer, None when the input is not quantized.
        types: ONNX data type of each weight width; INT16 under key 16 where 16-bit weights can be stored so.
        restored: store the weight as the real values that its integers stand for.
    """
    assert layer.weight is not None
    stored = _stored(layer, weight, input_scale, types)
    if layer.state_weight is not None:
        return _write_recurrent(builder, node, layer, weight, stored, restored)
    name = _own(builder, node, layer.weight)
    if stored is None:
        builder.add_float(name, np.asarray(weight.codes, np.float32))
        _write_bias(builder, node, layer, weight.bias)
        return (name,)
    codes, scale, axis, data_type = stored
    bias, separate = weight.bias, False
    if bias is not None and input_scale is not None:
        codes, scale, separate = _carrying(layer, codes, scale, axis, bias, input_scale)
        if not separate:
            bias = round_bias(bias, bias_steps(scale, input_scale, bias.size))
    if restored:
        builder.add_float(name, codes * _along(scale, axis, codes.ndim))
    else:
        _write_codes(builder, name, codes, scale, axis, data_type)
    if separate and bias is not None:
        _separate_bias(builder, node, layer, bias)
    else:
        _write_bias(builder, node, layer, bias)
    return (name,)


def _carrying(
    layer: Layer,
    codes: NDArray[np.integer],
    scale: NDArray[np.float32],
    axis: int | None,
    bias: NDArray[np.float32],
    input_scale: float,
) -> tuple[NDArray[np.integer], NDArray[np.float32], bool]:
    """Codes and scales behind which the bias fits INT32, and whether the bias must leave the layer for an Add instead."""
    floor = scale_floor(bias, input_scale, scale.size).astype(np.float32)
    if np.all(scale >= floor):
        return codes, scale, False
    dead = _dead_channels(codes, axis)
    if _powers_of_two(scale):
        floor = _next_power(floor)
    low = scale < floor * np.float32(1 - 1e-6)
    separate = layer.op_type != "MatMul" and bool(np.any(low & ~dead))
    if layer.op_type == "MatMul" and low.any():
        shrunk = np.where(low, scale / np.where(floor > 0, floor, 1), 1)
        codes = np.rint(codes * _along(shrunk, axis, codes.ndim)).astype(codes.dtype)
        dead = _dead_channels(codes, axis)
    return codes, np.where(dead | (low & ~separate), np.maximum(scale, floor), scale), separate


def _own(builder: ModelBuilder, node: NodeProto, weight: str) -> str:
    """The name under which the node reads its new weight."""
    name = builder.own(weight)
    node.input[list(node.input).index(weight)] = name
    return name


def _write_recurrent(
    builder: ModelBuilder,
    node: NodeProto,
    layer: Layer,
    weight: QuantizedWeight,
    stored: tuple[NDArray[np.integer], NDArray[np.float32], int | None, int] | None,
    restored: bool,
) -> tuple[str, ...]:
    """The matrices for the input and for the state, which lie side by side in `weight`, with one scale for each row."""
    inputs = layer.weight_shape[-1]
    names = tuple(_own(builder, node, name) for name in (layer.weight, layer.state_weight) if name is not None)
    for name, part in zip(names, (slice(None, inputs), slice(inputs, None)), strict=True):
        if stored is None:
            builder.add_float(name, np.asarray(weight.codes[..., part], np.float32))
            continue
        codes, scale, axis, data_type = stored
        if restored:
            builder.add_float(name, codes[..., part] * _along(scale, axis, codes.ndim))
        else:
            _write_codes(builder, name, np.ascontiguousarray(codes[..., part]), scale, axis, data_type)
    builder.nodes.append(node)
    return names


def _stored(
    layer: Layer, weight: QuantizedWeight, input_scale: float | None, types: Mapping[int, int]
) -> tuple[NDArray[np.integer], NDArray[np.float32], int | None, int] | None:
    """Codes, scale, channel axis and ONNX type to store; None to leave the weight in float.

    A 16-bit weight that is not zero does not become zero, so that the file has as many zeros as the plan says.
    """
    if weight.params is not None:
        scale = weight.params.scale.astype(np.float32)
        return weight.codes.astype(np.int8, copy=False), scale, weight.params.axis, types[weight.params.bits]
    if input_scale is None or 16 not in types:
        return None
    values = weight.codes.astype(np.float32)
    rows = to_rows(values, layer.output_axis)
    peaks = minmax_scales(rows, 8) * 127 / WIDE_LIMIT
    if _powers_of_two(np.array(input_scale)):
        peaks = _next_power(peaks)
    scale = settle_scales(peaks, peaks == 0)
    wide = np.rint(values / _along(scale, layer.output_axis, values.ndim))
    # a weight that is not zero stays so: zeros are counted in the file, and this one was left alone by the plan
    wide = np.where((wide == 0) & (values != 0), np.sign(values), wide)
    codes = np.clip(wide, -WIDE_LIMIT, WIDE_LIMIT).astype(np.int16)
    return codes, scale, layer.output_axis, types[16]


def _write_codes(
    builder: ModelBuilder,
    name: str,
    codes: NDArray[np.integer],
    scale: NDArray[np.float32],
    axis: int | None,
    data_type: int,
) -> None:
    stored, scale_name = builder.fresh(name + "_quantized"), builder.fresh(name + "_scale")
    zero_name = builder.fresh(name + "_zero_point")
    builder.add_integers(stored, codes, data_type)
    builder.add_float(scale_name, scale)
    builder.add_integers(zero_name, np.zeros(scale.shape, codes.dtype), data_type)
    attributes = {} if axis is None else {"axis": axis}
    builder.add_node("DequantizeLinear", [stored, scale_name, zero_name], name, **attributes)


def _write_bias(builder: ModelBuilder, node: NodeProto, layer: Layer, bias: NDArray[np.float32] | None) -> None:
    """The bias where the layer carries it: third input, or the constant of the Add behind a MatMul."""
    builder.nodes.append(node)
    if bias is None:
        return
    if layer.op_type == "MatMul":
        if layer.bias is None:
            raise PlanError(
                f"layer '{layer.key}' (MatMul): no constant Add follows it, so it cannot carry a bias; pass none"
            )
        if len(builder.readers[layer.bias]) > 1:
            raise PlanError(
                f"layer '{layer.key}' (MatMul): its bias '{layer.bias}' is read by other nodes too; give it one of its own"
            )
        shape = tuple(builder.original[layer.bias].dims)
        builder.add_float(
            builder.own(layer.bias), bias.reshape(tuple(-1 if size == max(shape) else size for size in shape))
        )
        return
    name = builder.fresh(layer.key + "_bias") if layer.bias is None else builder.own(layer.bias)
    builder.add_float(name, bias.reshape(-1))
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = name


def _separate_bias(builder: ModelBuilder, node: NodeProto, layer: Layer, bias: NDArray[np.float32]) -> None:
    """y = Layer(x, w) + bias, where INT32 would overflow."""
    output = node.output[0]
    del node.input[2:]
    node.output[0] = builder.fresh(output + "_unbiased")
    builder.nodes.append(node)
    name = builder.fresh(output + "_bias") if layer.bias is None else builder.own(layer.bias)
    spatial = 0 if layer.op_type == "Gemm" else len(layer.weight_shape) - 2
    builder.add_float(name, bias.reshape((1, -1) + (1,) * spatial))
    builder.add_node("Add", [node.output[0], name], output)


def _along(scale: NDArray[np.float32], axis: int | None, rank: int) -> NDArray[np.float32]:
    """Scale [K] shaped to broadcast along `axis` of a tensor of `rank` axes (per-tensor for None)."""
    shape = [1] * rank
    if axis is not None:
        shape[axis] = -1
    return scale.reshape(shape)


def _powers_of_two(scale: NDArray[np.floating]) -> bool:
    """Whether all scales are powers of two."""
    return bool(np.all(np.frexp(scale)[0] == 0.5))


def _next_power(values: NDArray[Real]) -> NDArray[Real]:
    """The least powers of two that are no smaller; zeros stay."""
    found: NDArray[Real] = np.where(values > 0, np.exp2(np.ceil(np.log2(np.where(values > 0, values, 1)))), values)
    return found.astype(values.dtype)


def _dead_channels(codes: NDArray[np.integer], axis: int | None) -> NDArray[np.bool_]:
    """Channels [K] whose codes are all zero (one entry for per-tensor parameters)."""
    if axis is None:
        return np.array([not codes.any()])
    axes = tuple(i for i in range(codes.ndim) if i != axis % codes.ndim)
    dead: NDArray[np.bool_] = ~np.any(codes, axis=axes)
    return dead
