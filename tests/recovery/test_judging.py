"""Errors in single precision and by factors against the plain double-precision form."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.recovery import judging
from hwc_onnx.recovery.judging import Judge, _factor


def moment_of(groups: int, samples: int, width: int, size: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(width + samples)
    inputs = rng.normal(size=(groups, samples, width)) * rng.lognormal(0.0, 1.0, width) * size
    inputs -= inputs.mean(axis=1, keepdims=True)
    moment: np.ndarray = inputs.transpose(0, 2, 1) @ inputs / samples
    return moment


def plain(moment: np.ndarray, difference: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.einsum("grd,gde,gre->gr", difference, moment, difference)
    return found


@pytest.mark.parametrize(("samples", "width"), [(400, 24), (1000, 200), (60, 200), (150, 200)])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_errors_are_those_of_double_precision(samples: int, width: int, size: float) -> None:
    moment = moment_of(2, samples, width, size)
    difference = np.random.default_rng(1).normal(size=(2, 7, width)) * 10.0 ** np.arange(-3, 4)[:, None]
    found = Judge(moment, samples).error(difference)
    np.testing.assert_allclose(found, plain(moment, difference), rtol=2e-5)


def test_a_factor_that_leaves_out_a_direction_is_found_out() -> None:
    """The broken twin of the test above."""
    moment = moment_of(1, 60, 200)
    difference = np.random.default_rng(2).normal(size=(1, 5, 200))
    factor = _factor(moment)
    assert factor.shape[2] <= 60
    whole, part = (((difference @ f.astype(np.float64)) ** 2).sum(axis=2) for f in (factor, factor[:, :, :-1]))
    np.testing.assert_allclose(whole, plain(moment, difference), rtol=2e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(part, plain(moment, difference), rtol=2e-5)


def test_nothing_to_tell_apart_is_no_error() -> None:
    moment = moment_of(1, 60, 200)
    assert not Judge(moment, 60).error(np.zeros((1, 3, 200))).any()
    assert not Judge(np.zeros((1, 200, 200)), 60).error(np.ones((1, 3, 200))).any()


def test_the_widest_moments_have_no_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = moment_of(1, 60, 200)
    difference = np.random.default_rng(2).normal(size=(1, 5, 200))
    narrow = Judge(moment, 60)
    monkeypatch.setattr(judging, "WIDEST", 199)
    wide = Judge(moment, 60)
    assert narrow.nbytes < wide.nbytes == 4 * moment.size
    np.testing.assert_allclose(wide.error(difference), plain(moment, difference), rtol=2e-5)
