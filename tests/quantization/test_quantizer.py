"""Affine quantization rounds half to even, limits, and keeps zero."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwc_onnx.quantization.quantizer import QuantParams, dequantize, quantize
from hwc_onnx.quantization.ranges import range_params
from tests.plain_weights import fake_quantize

FLOATS = st.floats(-100, 100, width=32)


@given(arrays(np.float32, st.integers(1, 20), elements=FLOATS), st.integers(2, 8), FLOATS, FLOATS)
def test_fake_quantize_error_is_at_most_half_a_step_inside_the_range(values, bits, low, high) -> None:
    params = range_params(min(low, high), max(low, high), bits)
    scale = float(params.scale)
    bottom, top = (params.qmin - int(params.zero_point)) * scale, (params.qmax - int(params.zero_point)) * scale
    inside = np.clip(values, bottom, top)
    assert np.all(np.abs(fake_quantize(values, params) - inside) <= 0.5001 * scale + 1e-6)


@given(st.integers(2, 8), st.booleans())
def test_quantize_of_dequantize_is_the_identity_on_codes(bits: int, signed: bool) -> None:
    params = QuantParams(np.float32(0.37), np.int32(0 if signed else 1), bits, signed, None)
    codes = np.arange(params.qmin, params.qmax + 1)
    np.testing.assert_array_equal(quantize(dequantize(codes, params), params), codes)


def test_quantize_ties_go_to_even() -> None:
    params = QuantParams(np.float32(2.0), np.int32(0), 8, True, None)
    np.testing.assert_array_equal(quantize(np.array([1.0, 3.0, 5.0, -1.0, -3.0]), params), [0, 2, 2, 0, -2])


def test_quantize_per_channel_uses_the_scale_of_its_axis() -> None:
    params = QuantParams(np.array([1.0, 10.0], np.float32), np.zeros(2, np.int32), 8, True, 1)
    np.testing.assert_array_equal(quantize(np.array([[20.0, 20.0]]), params), [[20, 2]])


@given(st.integers(2, 8), FLOATS, FLOATS)
def test_range_params_zero_comes_back_as_zero(bits: int, low: float, high: float) -> None:
    params = range_params(min(low, high), max(low, high), bits)
    assert fake_quantize(np.zeros(1, np.float32), params)[0] == 0.0
    assert params.qmin <= int(params.zero_point) <= params.qmax and params.scale > 0
