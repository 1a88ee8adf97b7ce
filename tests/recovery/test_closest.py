"""Short rows: the beam search against all combinations, and against rounding and descent."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from hwc_onnx.recovery.closest import closest_codes
from hwc_onnx.recovery.obs import obs_round
from hwc_onnx.recovery.quadratic import upper_factor_of_inverse
from tests.recovery.problems import descend_codes

F64 = NDArray[np.float64]
LOW, HIGH, STEP = -2, 1, 0.5
WIDTH, ROWS = 6, 4


def problem(seed: int) -> tuple[F64, F64, F64]:
    """Target, matrix of strongly correlated inputs, scale."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, WIDTH, 40)) + 2 * rng.normal(size=(2, 1, 40))
    matrix = x @ x.transpose(0, 2, 1) / 40 + 0.01 * np.eye(WIDTH)
    return rng.normal(size=(2, ROWS, WIDTH)), matrix, np.full((2, ROWS), STEP)


def error(target: F64, matrix: F64, codes: F64) -> F64:
    difference = target - STEP * codes
    return np.einsum("grd,gde,gre->gr", difference, matrix, difference)


def optimum(target: F64, matrix: F64, keep: NDArray[np.bool_] | None = None) -> F64:
    """Over all combinations of codes."""
    every = np.array(list(product(range(LOW, HIGH + 1), repeat=WIDTH)), dtype=np.float64)
    found = np.empty(target.shape[:2])
    for g, r in np.ndindex(found.shape):
        tried = every if keep is None else every[(every[:, ~keep[g, r]] == 0).all(axis=1)]
        difference = target[g, r] - STEP * tried
        found[g, r] = np.einsum("nd,de,ne->n", difference, matrix[g], difference).min()
    return found


def share_of_optimal(search: str) -> float:
    """Of 240 rows."""
    hits = []
    for seed in range(30):
        target, matrix, scale = problem(seed)
        if search == "beam":
            codes = closest_codes(target, matrix, scale, LOW, HIGH)
        else:
            codes = obs_round(target, upper_factor_of_inverse(matrix), None, scale, LOW, HIGH)
        if search == "descent":
            codes = descend_codes(codes, scale, target, matrix, LOW, HIGH)
        hits.append(error(target, matrix, codes) <= optimum(target, matrix) * (1 + 1e-9))
    return float(np.mean(hits))


def test_the_optimum_is_found_more_often_than_by_rounding_and_descent() -> None:
    assert share_of_optimal("beam") > 0.75
    assert share_of_optimal("descent") < 0.7
    assert share_of_optimal("rounded") < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_codes_are_in_range_and_zeros_stay(seed: int) -> None:
    target, matrix, scale = problem(seed)
    keep = np.random.default_rng(seed).random(target.shape) < 0.6
    codes = closest_codes(3 * target, matrix, scale, LOW, HIGH, keep)
    assert codes.min() >= LOW and codes.max() <= HIGH and not codes[~keep].any()
    np.testing.assert_array_equal(codes, np.rint(codes))
    codes = closest_codes(target, matrix, scale, LOW, HIGH, keep)
    assert np.median(error(target, matrix, codes) / optimum(target, matrix, keep)) < 1.001


def test_a_beam_of_one_is_rounding_one_after_the_other() -> None:
    """Broken twin: one beginning only loses against many, and never wins over the sum of all rows."""
    narrow, wide = 0.0, 0.0
    for seed in range(10):
        target, matrix, scale = problem(seed)
        narrow += error(target, matrix, closest_codes(target, matrix, scale, LOW, HIGH, beam=1)).sum()
        wide += error(target, matrix, closest_codes(target, matrix, scale, LOW, HIGH)).sum()
    assert wide < 0.95 * narrow


def test_bounds_may_differ_by_row() -> None:
    target, matrix, scale = problem(3)
    high = np.tile([0.0, 1.0, 3.0, 7.0], (2, 1))
    codes = closest_codes(5 * target, matrix, scale, -1.0, high)
    assert (codes.max(axis=2) <= high).all() and codes.max() > 3
