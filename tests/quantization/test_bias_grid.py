"""Biases are whole multiples of the product of the two scales, and always fit INT32."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwc_onnx.quantization.bias_grid import HEADROOM, bias_steps, round_bias, scale_floor


def test_bias_steps_repeat_over_the_groups_of_a_transposed_convolution() -> None:
    steps = bias_steps(np.array([0.5, 0.25], np.float32), 2.0, 6)
    np.testing.assert_array_equal(steps, [1.0, 0.5, 1.0, 0.5, 1.0, 0.5])


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=8), st.floats(1e-4, 1.0))
def test_round_bias_is_a_multiple_no_further_than_half_a_step(values: list[float], step: float) -> None:
    bias, steps = np.array(values, np.float32), np.full(len(values), step, np.float32)
    rounded = round_bias(bias, steps)
    assert np.all(np.abs(rounded - bias) <= 0.5001 * steps + 1e-5)
    np.testing.assert_array_equal(round_bias(rounded, steps), rounded)


@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1.0))
def test_scale_floor_is_the_smallest_scale_whose_integer_fits(bias: float, input_scale: float) -> None:
    (floor,) = scale_floor(np.array([bias], np.float32), input_scale, 1)
    assert abs(np.float32(bias)) / (floor * input_scale) <= HEADROOM * 1.000001
    assert abs(np.float32(bias)) / (0.9 * floor * input_scale) > HEADROOM


def test_scale_floor_of_a_shared_scale_takes_the_largest_bias() -> None:
    floor = scale_floor(np.array([1.0, 0.0, -3.0, 2.0], np.float32), 1.0, 2)
    np.testing.assert_allclose(floor * HEADROOM, [3.0, 2.0])
