"""Small models written in a dialect, with what they must compute according to the numpy integer reference."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.quantization.quantizer import QuantParams
from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.rewrite.integer_reference import run_reference
from tests.rewrite.quantized_case import QuantizedCase

PAIRS = ((8, 8), (6, 8), (4, 8), (3, 4), (2, 4), (8, 2))
"""Weight and activation bits."""


def written(quantized: QuantizedCase, dialect: str, weight_bits: int, activation_bits: int) -> onnx.ModelProto:
    """The model as ONNX Runtime opens it: of dialect qonnx the Quant nodes are made when the file is."""
    return insert_qdq(
        quantized.case.model,
        quantized.graph,
        quantized.weights(weight_bits),
        activations(quantized, dialect, activation_bits),
        dialect,
    )


def activations(quantized: QuantizedCase, dialect: str, bits: int) -> dict[str, QuantParams]:
    """Quantizers of the stored tensors, signed ones with zero point 0 for TensorRT."""
    if dialect != "tensorrt":
        return quantized.activations(bits)
    signed = {name: range_params(0.0, 1.0, bits, symmetric=True) for name in quantized.case.probabilities}
    return {**quantized.activations(bits, True), **signed}


def expected(quantized: QuantizedCase, dialect: str, weight_bits: int, activation_bits: int) -> NDArray[np.float64]:
    made = activations(quantized, dialect, activation_bits)
    return run_reference(
        quantized.case.model, quantized.graph, quantized.weights(weight_bits), made, quantized.case.feeds
    )["y"]


def step(quantized: QuantizedCase, dialect: str, activation_bits: int) -> float:
    """What the last quantizer's integers are worth."""
    return float(activations(quantized, dialect, activation_bits)["z"].scale)


def within_a_step(found: NDArray, wanted: NDArray, size: float) -> bool:
    """No element further than one quantization step, 99 % within half a step."""
    difference = np.abs(found - wanted)
    return bool(difference.max() <= 1.001 * size and np.mean(difference <= 0.5 * size) >= 0.99)


def equal_but_for_ties(found: NDArray, wanted: NDArray, size: float) -> bool:
    """Equal to 1e-5 of the largest, but for one element in a hundred, which may be a step away: sums of floats near a tie."""
    difference = np.abs(found - wanted)
    apart = difference > 1e-5 * np.abs(wanted).max()
    return bool(apart.sum() <= max(1, apart.size // 100) and difference.max() <= 1.001 * size)


def constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)
