"""Scales of weights cover their rows, and are fit to be written."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.quantization.weights import minmax_scales, settle_scales, symmetric_limit, to_rows

RNG = np.random.default_rng(0)
WEIGHT = (RNG.standard_t(4, (12, 8, 3, 3)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("bits", range(2, 9))
def test_minmax_scales_just_cover_each_row(bits: int) -> None:
    rows = to_rows(WEIGHT, 0)
    codes = np.rint(rows / minmax_scales(rows, bits)[:, None])
    assert np.array_equal(np.abs(codes).max(axis=1), np.full(12, 2 ** (bits - 1) - 1))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_rows_are_the_channels_of_any_axis(axis: int) -> None:
    moved = np.moveaxis(WEIGHT[:, :, :, 0], 0, axis)
    np.testing.assert_array_equal(to_rows(moved, axis), to_rows(WEIGHT[:, :, :, 0], 0))


def test_portable_limits_eight_bits_to_63() -> None:
    assert symmetric_limit(8, portable=True) == 63 and symmetric_limit(7, portable=True) == 63
    assert symmetric_limit(4, portable=True) == 7 and 2 * 255 * 63 < 2**15 < 2 * 255 * 127


def test_dead_channel_takes_the_median_scale_and_all_dead_ones_have_finite_scales() -> None:
    settled = settle_scales(np.array([1.0, 0.0, 3.0]), np.array([False, True, False]))
    assert settled.tolist() == [1.0, 2.0, 3.0]
    assert settle_scales(np.zeros(3), np.ones(3, dtype=bool)).tolist() == [1.0, 1.0, 1.0]


def test_settle_scales_dead_channel_carries_its_bias() -> None:
    scales, bias = np.array([1e-6, 0.0]), np.array([0.0, 1e4], np.float32)
    settled = settle_scales(scales, np.array([False, True]), bias, input_scale=1e-3)
    assert settled[1] >= 1e4 / (1e-3 * 2**30) * 0.999
    assert settled[0] == np.float32(1e-6)
