"""Ranges from data: each method does what it is named for."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams, fake_quantize
from hwc_onnx.quantization.ranges import METHODS, activation_params, probability_params, range_params


def histogram_of(values: np.ndarray) -> StreamingHistogram:
    histogram = StreamingHistogram()
    histogram.update(values)
    return histogram


def covered(params: QuantParams) -> tuple[float, float]:
    zero, scale = int(params.zero_point), float(params.scale)
    return (params.qmin - zero) * scale, (params.qmax - zero) * scale


VALUES = np.append(np.random.default_rng(0).standard_normal(100_000), [40.0, -30.0])


@pytest.mark.parametrize("bits", range(2, 9))
def test_activation_params_minmax_covers_every_value(bits: int) -> None:
    params = activation_params(histogram_of(VALUES), bits, "minmax")
    low, high = covered(params)
    assert low <= -30 + float(params.scale) and high >= 40 - float(params.scale)


def test_activation_params_percentile_cuts_the_tails() -> None:
    low, high = covered(activation_params(histogram_of(VALUES), 8, "percentile"))
    assert -5 < low < -3 and 3 < high < 5


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("relu", [True, False])
def test_activation_params_mse_is_never_worse_than_the_other_methods(bits: int, relu: bool) -> None:
    values = np.maximum(VALUES, 0) if relu else VALUES
    histogram = histogram_of(values)
    error = {
        method: float(np.mean((fake_quantize(values, activation_params(histogram, bits, method)) - values) ** 2))
        for method in METHODS
    }
    assert error["mse"] <= 1.02 * min(error.values())


def test_activation_params_mse_clips_outliers_at_few_bits() -> None:
    narrow, wide = (activation_params(histogram_of(VALUES), bits, "mse") for bits in (3, 8))
    assert covered(narrow)[1] < covered(wide)[1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [np.zeros(10), np.zeros(0)])
def test_activation_params_of_nothing_but_zeros_has_a_usable_scale(method: str, values: np.ndarray) -> None:
    params = activation_params(histogram_of(values), 4, method)
    assert params.scale == 1.0 and params.zero_point == 0


@pytest.mark.parametrize("method", METHODS)
def test_activation_params_symmetric_has_zero_point_zero_and_signed_codes(method: str) -> None:
    params = activation_params(histogram_of(VALUES), 5, method, symmetric=True)
    assert params.signed and params.zero_point == 0 and (params.qmin, params.qmax) == (-16, 15)


@pytest.mark.parametrize("bits", range(2, 9))
def test_probability_params_uses_all_levels_for_zero_to_one(bits: int) -> None:
    params = probability_params(bits)
    assert params.zero_point == 0 and covered(params) == pytest.approx((0.0, 1.0))


def test_range_params_denormal_range_keeps_a_normal_scale() -> None:
    params = range_params(0.0, 1e-40, 8)
    assert params.scale >= np.finfo(np.float32).tiny
