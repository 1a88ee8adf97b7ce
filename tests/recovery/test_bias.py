"""Bias correction is exact where a layer is linear: the mean output comes back."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.recovery.bias import corrected_bias
from hwc_onnx.recovery.drift import corrected, local_shift
from tests.recovery.problems import case, layout_for, moments


@pytest.mark.parametrize("keep", [None, np.array([0, 3, 4])])
@pytest.mark.parametrize("has_bias", [True, False])
def test_mean_output_of_the_changed_layer_equals_that_of_the_original(keep: np.ndarray | None, has_bias: bool) -> None:
    one = case(1, groups=2)
    columns = slice(None) if keep is None else keep
    values = np.round(one.weight[:, :, columns])
    bias = np.arange(10.0) if has_bias else None
    found = corrected_bias(bias, one.weight, values, moments(one.x).mean, keep)
    before = (one.x @ one.weight.transpose(0, 2, 1)).mean(axis=1).reshape(-1) + (0 if bias is None else bias)
    unbiased = (one.x[:, :, columns] @ values.transpose(0, 2, 1)).mean(axis=1).reshape(-1)
    np.testing.assert_allclose(unbiased + found, before, rtol=1e-5, atol=1e-5)
    reversed_sign = 2 * (0 if bias is None else bias) - found
    assert not np.allclose(unbiased + reversed_sign, before, atol=0.1)


@pytest.mark.parametrize(("groups", "taps"), [(1, 1), (2, 1), (2, 3)])
def test_local_shift_leaves_out_what_the_inputs_passed_on(groups: int, taps: int) -> None:
    """Changed weights, changed bias and shifted inputs: only the layer's own part is found, and correcting removes it."""
    rng = np.random.default_rng(2)
    channels, rows, samples = 3, 4, 50
    layout = layout_for(groups, rows, channels, taps)
    old, new = rng.normal(size=(2, groups, rows, channels * taps))
    x = rng.normal(size=(groups, samples, channels))
    delta = rng.normal(size=(groups, channels))

    def outputs(weight: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        return (np.repeat(inputs, taps, axis=2) @ weight.transpose(0, 2, 1)).mean(axis=1).reshape(-1)

    change = outputs(new, x + delta[:, None]) - outputs(old, x)
    shift = local_shift(new, layout, delta.reshape(-1), change)
    np.testing.assert_allclose(shift, outputs(new, x) - outputs(old, x), rtol=1e-9, atol=1e-9)
    assert not np.allclose(shift, change, atol=1e-3)
    bias = rng.normal(size=groups * rows).astype(np.float32)
    repaired = corrected(bias, shift)
    np.testing.assert_allclose(outputs(new, x) + repaired, outputs(old, x) + bias, rtol=1e-5, atol=1e-5)
    assert np.all(np.abs(corrected(bias, shift, 0.01) - bias) <= 0.0101)
