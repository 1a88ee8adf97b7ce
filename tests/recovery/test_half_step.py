"""Every code range of a weight holds what it should within half a step, rounded as layers are rounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.obs import obs_round
from hwc_onnx.recovery.scales import ranges_of
from hwc_onnx.recovery.setting import Setting
from tests.recovery.problems import case, layout_for

SLACK = 1e-6
"""Of a step: scales are stored in single precision."""
WIDTHS = [(bits, portable) for bits in range(2, 9) for portable in (False, True)]


def rounded(bits: int, portable: bool, seed: int, recovery: str = "none") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, their codes and scales [groups, rows, 1] without repair."""
    one = case(seed, groups=2, rows=5, width=7)
    layer = LayerRecovery(layout_for(2, 5, 7), one.weight, None, one.statistics, True, recovery, portable)  # type: ignore[arg-type]
    made = layer.build(Setting(bits))
    assert made.scale is not None
    return one.weight, made.codes.astype(np.float64), made.scale[:, :, None].astype(np.float64)


@pytest.mark.parametrize(("bits", "portable"), WIDTHS)
def test_weights_come_back_within_half_a_step(bits: int, portable: bool) -> None:
    low, high = ranges_of(bits, portable)[0]
    for seed in range(5):
        weight, codes, scale = rounded(bits, portable, seed)
        assert codes.min() >= low and codes.max() <= high and np.abs(codes).max() == high
        assert (np.abs(weight - codes * scale) <= (0.5 + SLACK) * scale).all()


@pytest.mark.parametrize(("bits", "portable"), WIDTHS)
def test_a_scale_that_cuts_the_largest_weights_is_noticed(bits: int, portable: bool) -> None:
    """Broken twin: the steps are too small for the codes there are."""
    _, high = ranges_of(bits, portable)[0]
    weight, _, scale = rounded(bits, portable, 0)
    smaller = scale * (high - 0.6) / high
    codes = np.clip(np.rint(weight / smaller), -high, high)
    assert not (np.abs(weight - codes * smaller) <= (0.5 + SLACK) * smaller).all()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(WIDTHS), st.integers(0, 2), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_the_sweep_rounds_within_half_a_step_in_every_range(
    width: tuple[int, bool], place: int, seed: int, step: float
) -> None:
    """Inputs that have nothing to do with one another: no column answers for another. Values fill the range and half a step
    beyond either end.
    """
    ranges = ranges_of(*width)
    low, high = ranges[place % len(ranges)]
    rng = np.random.default_rng(seed)
    weight = rng.uniform(low - 0.5, high + 0.5, (1, 4, 9)) * step
    weight[0, :, :2] = low * step, high * step
    factor = np.eye(9)[None] / rng.uniform(0.1, 10.0, 9)
    scale = np.full((1, 4), step)
    codes = obs_round(weight, factor, None, scale, low, high)
    assert codes.min() == low and codes.max() == high
    assert (np.abs(weight - codes * step) <= (0.5 + SLACK) * step).all()
    # broken twin: the range of the width's symmetric form, one code short
    if low != -high:
        narrow = obs_round(weight, factor, None, scale, max(low, -high), min(high, -low))
        assert not (np.abs(weight - narrow * step) <= (0.5 + SLACK) * step).all()
