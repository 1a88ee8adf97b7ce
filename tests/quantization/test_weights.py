"""Weights become symmetric integers per channel; scales are fit to be written."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.quantization.quantizer import QuantizedWeight, dequantize
from hwc_onnx.quantization.weights import quantize_weight, search_scales, settle_scales, symmetric_limit, to_rows

RNG = np.random.default_rng(0)
WEIGHT = (RNG.standard_t(4, (12, 8, 3, 3)) * 0.1).astype(np.float32)


def error(weight: np.ndarray, quantized: QuantizedWeight, importance: np.ndarray | float = 1.0) -> float:
    difference = to_rows(dequantize(quantized.codes, quantized.params), quantized.params.axis) - to_rows(
        weight, quantized.params.axis
    )
    return float(np.sum(difference**2 * importance))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_quantize_weight_codes_stay_in_the_symmetric_range(bits: int, method: str) -> None:
    quantized = quantize_weight(WEIGHT, 0, bits, method=method)
    limit = 2 ** (bits - 1) - 1
    assert quantized.codes.dtype == np.int8 and np.abs(quantized.codes).max() == limit
    assert quantized.weight_density == np.mean(quantized.codes != 0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_quantize_weight_searched_scale_is_never_worse_than_minmax(bits: int) -> None:
    assert error(WEIGHT, quantize_weight(WEIGHT, 0, bits)) <= 1.0001 * error(
        WEIGHT, quantize_weight(WEIGHT, 0, bits, method="minmax")
    )


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_quantize_weight_importance_lowers_the_weighted_error(bits: int) -> None:
    importance = RNG.uniform(0.01, 1.0, 72) ** 4
    plain, weighed = quantize_weight(WEIGHT, 0, bits), quantize_weight(WEIGHT, 0, bits, importance=importance)
    assert error(WEIGHT, weighed, importance) < error(WEIGHT, plain, importance)
    assert error(WEIGHT, weighed) >= error(WEIGHT, plain)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantize_weight_channels_along_any_axis_equal_axis_zero(axis: int) -> None:
    moved = np.moveaxis(WEIGHT[:, :, :, 0], 0, axis)
    expected = quantize_weight(WEIGHT[:, :, :, 0], 0, 4)
    found = quantize_weight(moved, axis, 4)
    np.testing.assert_array_equal(np.moveaxis(found.codes, axis, 0), expected.codes)
    np.testing.assert_array_equal(found.params.scale, expected.params.scale)


def test_quantize_weight_full_two_bits_is_at_least_as_good_as_ternary() -> None:
    ternary, best = (quantize_weight(WEIGHT, 0, 2, two_bits=kind) for kind in ("ternary", "best"))
    assert error(WEIGHT, best) < error(WEIGHT, ternary)
    rows = to_rows(best.codes.astype(np.float32), 0)
    assert all((-2 <= row.min() and row.max() <= 1) or (-1 <= row.min() and row.max() <= 2) for row in rows)


def test_quantize_weight_portable_limits_eight_bits_to_63() -> None:
    assert symmetric_limit(8, portable=True) == 63 and symmetric_limit(7, portable=True) == 63
    assert symmetric_limit(4, portable=True) == 7
    quantized = quantize_weight(WEIGHT, 0, 8, method="minmax", portable=True)
    assert np.abs(quantized.codes).max() == 63 and 2 * 255 * 63 < 2**15 < 2 * 255 * 127


def test_quantize_weight_dead_channel_takes_the_median_scale() -> None:
    weight = WEIGHT.copy()
    weight[[2, 5]] = 0.0
    quantized = quantize_weight(weight, 0, 8)
    live = np.delete(quantized.params.scale, [2, 5])
    np.testing.assert_allclose(quantized.params.scale[[2, 5]], np.median(live), rtol=1e-6)


def test_quantize_weight_all_zero_has_finite_scales_and_no_density() -> None:
    quantized = quantize_weight(np.zeros((3, 4), np.float32), 0, 4)
    assert np.all(quantized.params.scale == 1.0) and quantized.weight_density == 0.0


def test_settle_scales_dead_channel_carries_its_bias() -> None:
    scales, bias = np.array([1e-6, 0.0]), np.array([0.0, 1e4], np.float32)
    settled = settle_scales(scales, np.array([False, True]), bias, input_scale=1e-3)
    assert settled[1] >= 1e4 / (1e-3 * 2**30) * 0.999
    assert settled[0] == np.float32(1e-6)


def test_search_scales_of_a_row_on_a_grid_finds_the_grid() -> None:
    codes = RNG.integers(-7, 8, (5, 40)).astype(np.float64)
    codes[:, 0] = 7
    scales = RNG.uniform(0.1, 2.0, 5)
    np.testing.assert_allclose(search_scales(codes * scales[:, None], 4), scales, rtol=1e-9)
