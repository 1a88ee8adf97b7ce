"""Bias correction is exact where a layer is linear: the mean output comes back."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.recovery.bias import corrected_bias
from tests.recovery.problems import case, moments


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
