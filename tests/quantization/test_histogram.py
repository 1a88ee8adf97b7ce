"""A streaming histogram counts what one pass over all values would count, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.errors import DataError
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import quantize
from hwc_onnx.quantization.ranges import activation_params, range_params
from tests.plain_weights import fake_quantize


def filled(*parts: np.ndarray, bins: int = 4096) -> StreamingHistogram:
    histogram = StreamingHistogram(bins)
    for part in parts:
        histogram.update(part)
    return histogram


def counts(histogram: StreamingHistogram) -> dict[float, int]:
    centers, found = histogram.centers()
    return dict(zip(centers.tolist(), found.tolist(), strict=True))


def parts(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal(50) * 10.0 ** rng.uniform(-3, 3) + rng.uniform(-5, 5) for _ in range(4)]
    return [np.where(rng.random(50) < 0.2, 0.0, values) for values in drawn]


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([16, 64, 1024]))
def test_histogram_keeps_every_value_in_its_bin(seed: int, bins: int) -> None:
    data = parts(seed)
    histogram, everything = filled(*data, bins=bins), np.concatenate(data)
    assert histogram.total == everything.size and histogram.zeros == np.sum(everything == 0)
    assert histogram.minimum == everything.min() and histogram.maximum == everything.max()
    assert histogram.mean == pytest.approx(everything.mean())
    assert histogram.variance == pytest.approx(everything.var(), rel=1e-6, abs=1e-9)
    nonzero = everything[everything != 0]
    expected = np.floor(nonzero / histogram.width)
    found, number = np.unique(expected, return_counts=True)
    assert counts(histogram) == dict(zip(((found + 0.5) * histogram.width).tolist(), number.tolist(), strict=True))


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_histogram_merge_equals_one_pass_and_changes_neither(seed: int) -> None:
    first, second, third, fourth = parts(seed)
    left, right = filled(first, second, bins=64), filled(third, fourth, bins=64)
    before = counts(left), counts(right)
    merged, whole = left.merge(right), filled(first, second, third, fourth, bins=64)
    assert (counts(left), counts(right)) == before
    assert merged.total == whole.total and merged.zeros == whole.zeros
    assert merged.minimum == whole.minimum and merged.maximum == whole.maximum
    if merged.width == whole.width:
        assert counts(merged) == counts(whole)
    else:
        assert sum(counts(merged).values()) == sum(counts(whole).values())


def test_histogram_merge_with_an_empty_one_changes_nothing() -> None:
    histogram, empty = filled(np.array([0.0, 1.0, -3.0])), StreamingHistogram()
    assert counts(histogram.merge(empty)) == counts(empty.merge(histogram)) == counts(histogram)
    assert empty.merge(histogram).minimum == -3.0


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["relu", "normal", "negative"])
def test_histogram_density_equals_counting_the_quantized_values(bits: int, kind: str) -> None:
    values = np.random.default_rng(bits).standard_normal(200_000).astype(np.float32)
    values = {"relu": np.maximum(values, 0), "normal": values + 0.3, "negative": -np.abs(values)}[kind]
    histogram = filled(values)
    for params in (
        activation_params(histogram, bits, "mse"),
        range_params(0.0, 2.0, bits),
        range_params(-2.0, 0.0, bits),
    ):
        expected = np.mean(quantize(values, params) != int(params.zero_point))
        assert histogram.density(params) == pytest.approx(expected, abs=2e-3)


def test_histogram_density_off_by_one_zero_point_is_noticed() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    histogram, params = filled(values), range_params(-2.0, 2.0, 4)
    wrong = np.mean(quantize(values, params) != int(params.zero_point) + 1)
    assert abs(histogram.density(params) - wrong) > 2e-3


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_histogram_squared_error_equals_direct_error(bits: int) -> None:
    values = np.random.default_rng(bits).standard_normal(100_000).astype(np.float32)
    histogram, params = filled(values), range_params(-2.0, 2.5, bits)
    expected = np.mean((fake_quantize(values, params).astype(np.float64) - values) ** 2)
    assert histogram.squared_error(params) == pytest.approx(expected, rel=0.02)


@given(st.floats(0.001, 0.999))
def test_histogram_quantile_is_within_a_bin_of_the_sorted_value(share: float) -> None:
    values = np.maximum(np.random.default_rng(3).standard_normal(5000), -0.5)
    histogram = filled(values)
    expected = np.quantile(values, share, method="inverted_cdf")
    assert abs(histogram.quantile(share) - expected) <= 2 * histogram.width + 1e-12


def test_histogram_quantile_inside_the_zeros_is_zero() -> None:
    histogram = filled(np.maximum(np.random.default_rng(0).standard_normal(1000), 0))
    assert histogram.quantile(0.3) == 0.0 and histogram.quantile(0.9) > 0.5
    assert histogram.quantile(0.0) == 0.0 and histogram.quantile(1.0) == histogram.maximum


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_histogram_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        StreamingHistogram().update(np.array([1.0, value]))


def test_histogram_of_huge_and_tiny_values_stays_bounded() -> None:
    histogram = filled(np.array([1e-30]), np.array([1e30]), np.array([-1e30, 5.0]))
    assert histogram.counts.size == 4096 and histogram.counts.sum() == 4


def test_histogram_of_denormal_float32_values_counts_them() -> None:
    histogram = filled(np.array([1e-42, -3e-42, 0.0], np.float32))
    assert histogram.counts.sum() == 2 and histogram.zeros == 1
