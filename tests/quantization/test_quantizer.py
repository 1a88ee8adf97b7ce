"""Affine quantization rounds half to even, limits, and keeps zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwc_onnx.quantization.quantizer import QuantParams, dequantize, quantize
from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.recovery.scales import storable
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


def errors_in_steps(values: np.ndarray, params: QuantParams, to_codes: Callable[..., np.ndarray]) -> float:
    """The largest difference between values and what comes back, for values in the range, in steps."""
    axis = params.axis
    step = params.scale if axis is None else params.scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    inside = np.clip(values, (params.qmin - int(params.zero_point.flat[0])) * step, (params.qmax - int(params.zero_point.flat[0])) * step)
    return float((np.abs(dequantize(to_codes(inside, params), params) - inside) / step).max())


def truncated(values: np.ndarray, params: QuantParams) -> np.ndarray:
    """Broken twin: rounds down."""
    axis = params.axis
    step = params.scale if axis is None else params.scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    codes = np.floor(values / step) + int(params.zero_point.flat[0])
    return np.clip(codes, params.qmin, params.qmax).astype(np.int32)


@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize(("signed", "zero"), [(True, 0), (True, -1), (False, 0), (False, 1)])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_round_trip_is_within_half_a_step(bits: int, axis: int | None, signed: bool, zero: int, powers: bool) -> None:
    rng = np.random.default_rng(bits)
    shape = (6, 50)
    count = () if axis is None else (shape[axis],)
    scale = rng.uniform(0.05, 0.9, count)
    if powers:
        scale = storable(np.reshape(scale, (1, -1)), False, True).reshape(count)
        assert np.all(np.log2(scale) == np.round(np.log2(scale)))
    params = QuantParams(np.float32(scale) if axis is None else scale.astype(np.float32), np.full(count, zero, np.int32), bits, signed, axis)
    step = params.scale if axis is None else params.scale.reshape([-1 if i == axis else 1 for i in range(2)])
    values = (rng.uniform(params.qmin - zero - 1, params.qmax - zero + 1, shape) * step).astype(np.float32)
    assert errors_in_steps(values, params, quantize) <= 0.5001
    assert errors_in_steps(values, params, truncated) > 0.51
