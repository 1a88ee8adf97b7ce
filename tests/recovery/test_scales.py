"""Scales: the refit is the minimum of a parabola, the first guess comes near the best of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hwc_onnx.quantization.weights import SMALLEST_SCALE
from hwc_onnx.recovery.scales import code_range, fill_dead, ranges_of, refit_scale, search_scale, storable
from tests.recovery.problems import F64, case, output_error, quadratic


@given(st.integers(0, 10_000), st.integers(1, 7))
@example(2150, 1)
@settings(max_examples=60, deadline=None)
def test_refitted_scale_is_better_than_any_of_a_grid(seed: int, high: int) -> None:
    one = case(seed, groups=2)
    problem = quadratic(one)
    first = np.abs(one.weight).max(axis=2) / high
    codes = np.clip(np.rint(one.weight / first[:, :, None]), -high, high)
    best = refit_scale(codes, first, problem.target, problem.matrix)
    least = output_error(one, codes * best[:, :, None])
    # codes that point away from the target have no best scale above zero, and keep the one that they had
    towards = np.einsum("grd,grd->gr", codes @ problem.matrix, problem.target) > 0
    np.testing.assert_array_equal(best[~towards], first[~towards])
    for factor in np.linspace(0.2, 2.0, 181):
        error = output_error(one, codes * (factor * first)[:, :, None])
        assert np.all(least[towards] <= error[towards] * (1 + 1e-9))


def test_refit_that_forgets_the_correlations_loses_to_the_grid() -> None:
    """Broken twin: only the diagonal of the matrix."""
    one = case(1)
    problem = quadratic(one)
    first = np.abs(one.weight).max(axis=2)
    codes = np.clip(np.rint(one.weight / first[:, :, None]), -1, 1)
    wrong = refit_scale(codes, first, problem.target, problem.matrix * np.eye(7))
    grid = [output_error(one, codes * (f * first)[:, :, None]) for f in np.linspace(0.2, 2.0, 181)]
    assert np.any(output_error(one, codes * wrong[:, :, None]) > 1.01 * np.min(grid, axis=0))


def test_refit_keeps_the_scale_where_no_positive_one_helps() -> None:
    one = case(2)
    problem = quadratic(one)
    scale = np.full((1, 5), 0.3)
    np.testing.assert_array_equal(refit_scale(np.zeros_like(one.weight), scale, problem.target, problem.matrix), scale)
    away = refit_scale(-np.sign(one.weight) * (one.weight != 0), scale, one.weight, np.eye(7)[None])
    np.testing.assert_array_equal(away, scale)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-2, 1), (-1, 2), (-7, 7), (-127, 127)])
def test_first_guess_comes_near_the_least_weighted_error(low: int, high: int) -> None:
    one = case(3, groups=2)
    importance = np.random.default_rng(0).random((2, 7))

    def error(scale: F64) -> F64:
        codes = np.clip(np.rint(one.weight / scale[:, :, None]), low, high)
        return ((one.weight - codes * scale[:, :, None]) ** 2 * importance[:, None]).sum(axis=2)

    found = search_scale(one.weight, importance, low, high)
    whole = search_scale(one.weight, importance, low, high, steps=1)
    reach = np.stack([whole * low, whole * high], axis=2)
    assert np.all(one.weight >= reach.min(axis=2)[:, :, None] - 1e-12)
    assert np.all(one.weight <= reach.max(axis=2)[:, :, None] + 1e-12)
    assert np.all(error(found) <= error(whole))
    if high <= 7:
        assert np.any(error(found) < 0.8 * error(whole))
        for shrink in np.linspace(1.0, (found / whole).min(), 24):
            assert np.all(error(found) <= error(whole * shrink) * 1.15)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("portable", [False, True])
def test_ranges_fit_their_width(bits: int, portable: bool) -> None:
    low, high = code_range(bits, portable)
    assert low == -high and high == (63 if portable and bits == 8 else 2 ** (bits - 1) - 1)
    for first, last in ranges_of(bits, portable):
        assert last - first < 2**bits and (first <= 0 <= last)
        # the mirror image of a two-bit range is the one exception: three of its four codes are the plain ones
        assert -(2 ** (bits - 1)) <= first and (last <= 2 ** (bits - 1) - 1 or (bits, last) == (2, 2))


def test_dead_rows_take_the_median_of_the_living() -> None:
    np.testing.assert_array_equal(fill_dead(np.array([[0.0, 1.0, 4.0, 2.0]])), [[2.0, 1.0, 4.0, 2.0]])
    np.testing.assert_array_equal(fill_dead(np.zeros((1, 2))), [[1.0, 1.0]])
    np.testing.assert_array_equal(fill_dead(np.array([[3.0, 5.0]]), np.array([[True, False]])), [[5.0, 5.0]])


def test_a_channel_next_to_nothing_has_the_scale_of_the_others() -> None:
    """Weights of 1e-44 would need a scale that float32 does not hold: as 0 or without most of its bits."""
    given = np.array([[0.5, 1e-46, 0.25, 3e-40, 0.0, SMALLEST_SCALE]])
    stored = storable(given, tied=False)
    np.testing.assert_array_equal(stored, [[0.5, 0.25, 0.25, 0.25, 0.25, np.float32(SMALLEST_SCALE)]])
    broken = fill_dead(given).astype(np.float32)
    assert (broken < SMALLEST_SCALE).any()


@pytest.mark.filterwarnings("error")
def test_weights_next_to_nothing_are_searched_without_a_warning() -> None:
    weight = np.random.default_rng(0).normal(size=(1, 3, 9)) * np.array([1.0, 1e-44, 1e-300])[:, None]
    found = search_scale(weight, np.ones((1, 9)), -127, 127)
    alone = search_scale(weight[:, :1], np.ones((1, 9)), -127, 127)
    assert found[0, 0] == alone[0, 0] and (found > 0).all()
