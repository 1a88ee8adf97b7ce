"""Rounding as plain as can be, to make quantized models for tests: no search, no repair."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams, dequantize, quantize
from hwc_onnx.quantization.weights import minmax_scales, settle_scales, symmetric_limit, to_rows


def quantize_weight(
    weight: NDArray[np.floating],
    axis: int,
    bits: int,
    *,
    bias: NDArray[np.float32] | None = None,
    input_scale: float | None = None,
    two_bits: Literal["ternary", "full"] = "ternary",
) -> QuantizedWeight:
    """`weight` rounded per channel along `axis`; 2-bit codes are -1..1, or all four, -2..1 or -1..2 by the larger side."""
    rows = to_rows(weight, axis)
    limit = symmetric_limit(bits)
    low, high = np.full(len(rows), -limit), np.full(len(rows), limit)
    scales = minmax_scales(rows, bits)
    if two_bits == "full":
        negative = -rows.min(axis=1) > rows.max(axis=1)
        low, high = np.where(negative, -2, -1), np.where(negative, 1, 2)
        scales = np.abs(rows).max(axis=1) / 2.0
    safe = np.where(scales > 0, scales, 1.0)[:, None]
    codes = np.clip(np.rint(rows / safe), low[:, None], high[:, None])
    settled = settle_scales(scales, ~np.any(codes != 0, axis=1), bias, input_scale)
    shape = np.moveaxis(np.asarray(weight), axis, 0).shape
    integers = np.ascontiguousarray(np.moveaxis(codes.astype(np.int8).reshape(shape), 0, axis))
    params = QuantParams(settled, np.zeros(settled.shape, np.int32), bits, True, axis)
    return QuantizedWeight(integers, params, bias, float(np.mean(codes != 0)))


def fake_quantize(values: NDArray[np.floating], params: QuantParams) -> NDArray[np.float32]:
    """`values` as they come back after a trip through the integers."""
    return dequantize(quantize(values, params), params)
