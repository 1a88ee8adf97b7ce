"""What a quantized network computes, in plain numpy, from the float model and the plan's integers.

Independent of the written file: it never sees QuantizeLinear nodes. Where a layer's operands are integers, products are
summed as integers and scaled once; everything else is float64. Rounding is half to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams


@dataclass(frozen=True)
class Value:
    """A tensor: its real values, and (integers with the zero point taken off, scale) when it is stored as such."""

    real: NDArray[np.float64]
    integers: NDArray[np.int64] | None = None
    scale: float = 1.0


def run_reference(
    model: onnx.ModelProto,
    graph: LayerGraph,
    weights: Mapping[str, QuantizedWeight],
    activations: Mapping[str, QuantParams],
    feeds: Mapping[str, NDArray[np.float32]],
) -> dict[str, NDArray[np.float64]]:
    """Every tensor's real values by name (stored tensors after rounding)."""
    values = {
        tensor.name: Value(numpy_helper.to_array(tensor).astype(np.float64)) for tensor in model.graph.initializer
    }
    layers = {layer.key: layer for layer in graph.layers}
    added: dict[str, NDArray[np.float64]] = {}
    for name, array in feeds.items():
        values[name] = _store(array.astype(np.float64), activations.get(name))
    for node in model.graph.node:
        key = node.output[0]
        inputs = [values.get(name) for name in node.input]
        if key in weights:
            layer, weight = layers[key], weights[key]
            inputs[list(node.input).index(layer.weight)] = _weight(weight)
            if layer.op_type == "MatMul" and layer.bias is not None:
                added[layer.bias] = _added_bias(weight, values[layer.inputs[0]])
            bias = None if layer.op_type == "MatMul" else weight.bias
            result = _layer(node, inputs, bias, weight)
        elif node.op_type in _LINEAR:
            result = _layer(node, inputs, _float_bias(inputs), None)
        else:
            operands = [
                added.get(name, None if value is None else value.real)
                for name, value in zip(node.input, inputs, strict=True)
            ]
            result = _OTHERS[node.op_type](node, *operands)
        values[key] = _store(result, activations.get(key))
    return {name: value.real for name, value in values.items()}


def _added_bias(weight: QuantizedWeight, source: Value) -> NDArray[np.float64]:
    """The constant behind a MatMul: a multiple of the product's step where both operands are integers."""
    if weight.params is None or source.integers is None:
        return weight.bias.astype(np.float64)
    steps = (np.float32(source.scale) * weight.params.scale).astype(np.float64)
    return np.round(weight.bias / steps) * steps


def _float_bias(inputs: list[Value | None]) -> NDArray[np.float64] | None:
    return inputs[2].real if len(inputs) > 2 and inputs[2] is not None else None


def _store(real: NDArray[np.float64], params: QuantParams | None) -> Value:
    if params is None:
        return Value(real)
    scale, zero = float(params.scale), int(params.zero_point)
    low, high = (-(2 ** (params.bits - 1)), 2 ** (params.bits - 1) - 1) if params.signed else (0, 2**params.bits - 1)
    integers = np.clip(np.round(real / scale) + zero, low, high).astype(np.int64) - zero
    return Value(integers * scale, integers, scale)


def _weight(weight: QuantizedWeight) -> Value:
    """Per-channel scales stay outside: `integers` are the codes, `real` the dequantized values."""
    if weight.params is None:
        return Value(weight.codes.astype(np.float64))
    shape = [1] * weight.codes.ndim
    shape[weight.params.axis] = -1
    scale = weight.params.scale.astype(np.float64).reshape(shape)
    return Value(weight.codes.astype(np.int64) * scale, weight.codes.astype(np.int64))


def _layer(
    node: onnx.NodeProto, inputs: list[Value | None], bias: NDArray[np.float32] | None, weight: QuantizedWeight | None
) -> NDArray[np.float64]:
    """Conv, ConvTranspose, Gemm or MatMul, on the integers where both operands have them."""
    first, second = inputs[0], inputs[1]
    operate = _LINEAR[node.op_type]
    if first.integers is None or second.integers is None:
        result = operate(node, first.real, second.real)
        return result if bias is None else result + _channels(node, bias.astype(np.float64), result)
    sums = operate(node, first.integers, second.integers)
    assert sums.dtype == np.int64
    if weight is None:
        return sums * (first.scale * second.scale)
    left = first.scale if weight.codes is not first.integers and first.scale != 1.0 else second.scale
    steps = np.float32(left) * weight.params.scale
    if bias is not None:
        repeated = np.tile(steps, bias.size // steps.size)
        sums = sums + _channels(node, np.round(bias / repeated).astype(np.int64), sums)
    if node.op_type == "MatMul":
        axis = -1 if weight.params.axis == weight.codes.ndim - 1 else -2
        shape = [1] * sums.ndim
        shape[axis] = -1
        return sums * steps.astype(np.float64).reshape(shape)
    count = sums.shape[1]
    return sums * _channels(node, np.tile(steps, count // steps.size).astype(np.float64), sums)


def _channels(node: onnx.NodeProto, values: NDArray, result: NDArray) -> NDArray:
    return values.reshape((1, -1) + (1,) * (result.ndim - 2))


def _attribute(node: onnx.NodeProto, name: str, default):
    return next((onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _conv(node: onnx.NodeProto, x: NDArray, w: NDArray) -> NDArray:
    group = _attribute(node, "group", 1)
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    (sy, sx), (dy, dx) = _attribute(node, "strides", [1, 1]), _attribute(node, "dilations", [1, 1])
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    fy, fx = w.shape[2:]
    rows = (x.shape[2] - (fy - 1) * dy - 1) // sy + 1
    columns = (x.shape[3] - (fx - 1) * dx - 1) // sx + 1
    per_group, inputs = w.shape[0] // group, w.shape[1]
    out = np.zeros((x.shape[0], w.shape[0], rows, columns), x.dtype)
    for g, i, j in product(range(group), range(fy), range(fx)):
        patch = x[:, g * inputs : (g + 1) * inputs, i * dy :: sy, j * dx :: sx][:, :, :rows, :columns]
        kernel = w[g * per_group : (g + 1) * per_group, :, i, j]
        out[:, g * per_group : (g + 1) * per_group] += np.einsum("ncyx,kc->nkyx", patch, kernel)
    return out


def _conv_transpose(node: onnx.NodeProto, x: NDArray, w: NDArray) -> NDArray:
    group = _attribute(node, "group", 1)
    sy, sx = _attribute(node, "strides", [1, 1])
    fy, fx = w.shape[2:]
    inputs, per_group = w.shape[0] // group, w.shape[1]
    rows, columns = (x.shape[2] - 1) * sy + fy, (x.shape[3] - 1) * sx + fx
    out = np.zeros((x.shape[0], per_group * group, rows, columns), x.dtype)
    for g, i, j in product(range(group), range(fy), range(fx)):
        part = np.einsum(
            "ncyx,ck->nkyx", x[:, g * inputs : (g + 1) * inputs], w[g * inputs : (g + 1) * inputs, :, i, j]
        )
        block = out[:, g * per_group : (g + 1) * per_group]
        block[:, :, i : i + (x.shape[2] - 1) * sy + 1 : sy, j : j + (x.shape[3] - 1) * sx + 1 : sx] += part
    return out


def _max_pool(node: onnx.NodeProto, x: NDArray) -> NDArray:
    (fy, fx), (sy, sx) = _attribute(node, "kernel_shape", None), _attribute(node, "strides", [1, 1])
    rows, columns = (x.shape[2] - fy) // sy + 1, (x.shape[3] - fx) // sx + 1
    taps = [x[:, :, i::sy, j::sx][:, :, :rows, :columns] for i, j in product(range(fy), range(fx))]
    return np.max(taps, axis=0)


def _softmax(node: onnx.NodeProto, x: NDArray) -> NDArray:
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


_LINEAR = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": lambda node, x, w: x @ (w.T if _attribute(node, "transB", 0) else w),
    "MatMul": lambda node, x, w: x @ w,
}

_OTHERS = {
    "Relu": lambda node, x: np.maximum(x, 0),
    "Clip": lambda node, x, low, high: np.clip(x, low, high),
    "HardSwish": lambda node, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Add": lambda node, a, b: a + b,
    "Concat": lambda node, *parts: np.concatenate(parts, axis=_attribute(node, "axis", 0)),
    "MaxPool": _max_pool,
    "GlobalAveragePool": lambda node, x: x.mean(axis=(2, 3), keepdims=True),
    "Flatten": lambda node, x: x.reshape(x.shape[0], -1),
    "Transpose": lambda node, x: np.transpose(x, _attribute(node, "perm", None)),
    "Softmax": _softmax,
}
