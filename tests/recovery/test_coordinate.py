"""Coordinate descent never goes up, and stops where no single change helps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery import coordinate
from hwc_onnx.recovery.coordinate import Descent, descend_values
from hwc_onnx.recovery.quadratic import Quadratic
from tests.recovery.problems import F64, case, descend_codes, output_error, quadratic

LOW, HIGH = -3, 3


def start(seed: int, groups: int = 1) -> tuple[object, object, F64, F64]:
    one = case(seed, groups)
    scale = np.abs(one.weight).max(axis=2) / HIGH
    return one, quadratic(one), np.clip(np.rint(one.weight / scale[:, :, None]), LOW, HIGH), scale


@given(st.integers(0, 10_000), st.integers(1, 2), st.sampled_from([32, 2]))
@settings(max_examples=60, deadline=None)
def test_no_sweep_over_codes_raises_the_error_on_the_samples(seed: int, groups: int, block: int) -> None:
    one, problem, codes, scale = start(seed, groups)
    before = output_error(one, codes * scale[:, :, None])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coordinate, "SPAN", block)
        patch.setattr(coordinate, "INNER", max(block // 2, 1))
        for _ in range(6):
            codes = descend_codes(codes, scale, problem.target, problem.matrix, LOW, HIGH, sweeps=1)
            after = output_error(one, codes * scale[:, :, None])
            assert np.all(after <= before * (1 + 1e-12))
            before = after
    assert codes.min() >= LOW and codes.max() <= HIGH


def test_descent_with_a_wrong_gradient_raises_the_error() -> None:
    """Broken twin: the matrix of other samples."""
    one, problem, codes, scale = start(0)
    wrong = quadratic(case(99)).matrix
    moved = descend_codes(codes, scale, problem.target, wrong, LOW, HIGH, sweeps=50)
    assert output_error(one, moved * scale[:, :, None]).sum() > output_error(one, codes * scale[:, :, None]).sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [32, 3])
def test_codes_at_rest_cannot_be_improved_by_any_single_change(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinate, "SPAN", block)
    monkeypatch.setattr(coordinate, "INNER", 2)
    one, problem, first, scale = start(seed)
    keep = np.random.default_rng(seed).random(first.shape) < 0.8
    codes = descend_codes(first * keep, scale, problem.target, problem.matrix, LOW, HIGH, keep, sweeps=1000)
    assert not codes[~keep].any()

    def improvements(codes: F64) -> int:
        least, found = output_error(one, codes * scale[:, :, None])[0], 0
        for r, j in np.argwhere(keep[0]):
            for code in range(LOW, HIGH + 1):
                changed = codes.copy()
                changed[0, r, j] = code
                found += output_error(one, changed * scale[:, :, None])[0, r] < least[r] * (1 - 1e-9)
        return found

    assert improvements(codes) == 0
    assert improvements(first * keep) > 0


def one_code_at_a_time(problem: Quadratic, codes: F64, scale: F64) -> F64:
    """A sweep as it is defined: the gradient is worked out anew for every code."""
    codes = codes.copy()
    for j in range(codes.shape[2]):
        gradient = (problem.target - codes * scale[:, :, None]) @ problem.matrix[:, :, j : j + 1]
        best = codes[:, :, j] + gradient[:, :, 0] / (scale * problem.matrix[:, None, j, j])
        codes[:, :, j] = np.clip(np.rint(best), LOW, HIGH)
    return codes


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("span", "inner"), [(128, 16), (4, 4), (5, 2), (1, 1)])
def test_a_sweep_in_spans_is_a_sweep_code_by_code(
    groups: int, span: int, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinate, "SPAN", span)
    monkeypatch.setattr(coordinate, "INNER", inner)
    _, problem, codes, scale = start(3, groups)
    descent = Descent(codes, problem.target, problem.matrix, LOW, HIGH)
    descent.sweep(scale)
    expected = one_code_at_a_time(problem, codes, scale)
    assert np.array_equal(descent.codes, expected) and not np.array_equal(expected, codes)
    if span > 1:
        monkeypatch.setattr(coordinate, "INNER", span + 1)
        broken = Descent(codes, problem.target, np.roll(problem.matrix, 1, axis=2), LOW, HIGH)
        broken.sweep(scale)
        assert not np.array_equal(broken.codes, expected)


def test_error_of_codes_is_that_of_the_rows_less_that_of_zeros() -> None:
    _, problem, codes, scale = start(4, 2)
    twice = np.concatenate([codes, -codes], axis=1)
    scales = np.concatenate([scale, scale], axis=1)
    descent = Descent(twice, problem.target, problem.matrix, LOW, HIGH)
    plain = problem.error(np.zeros_like(codes))
    expected = [problem.error(sign * codes * scale[:, :, None]) - plain for sign in (1, -1)]
    np.testing.assert_allclose(descent.error(scales), np.concatenate(expected, axis=1), rtol=1e-9)
    assert not np.allclose(descent.error(1.1 * scales), np.concatenate(expected, axis=1), rtol=1e-3)


def test_rows_keep_to_their_own_bounds() -> None:
    _, problem, codes, scale = start(5)
    low, high = np.array([[-3.0, -2.0, -1.0, 0.0, -3.0]]), np.array([[3.0, 1.0, 2.0, 3.0, 0.0]])
    moved = descend_codes(
        np.clip(codes, low[:, :, None], high[:, :, None]), scale, problem.target, problem.matrix, low, high
    )
    assert np.all(moved >= low[:, :, None]) and np.all(moved <= high[:, :, None])


@pytest.mark.parametrize("groups", [1, 2])
def test_descent_over_values_reaches_least_squares_on_the_kept_columns(
    groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinate, "BLOCK", 3)
    one = case(7, groups, width=6, samples=200)
    problem = quadratic(one)
    keep = np.random.default_rng(7).random(one.weight.shape) < 0.6
    errors = []
    for sweeps in (0, 1, 3, 2000):
        values = descend_values(one.weight * keep, problem.target, problem.matrix, keep, sweeps)
        assert not values[~keep].any()
        errors.append(output_error(one, values))
    assert np.all(np.diff(errors, axis=0) <= 1e-12)
    for g, r in np.ndindex(*one.weight.shape[:2]):
        there = keep[g, r]
        best = np.linalg.lstsq(one.x[g][:, there], one.x[g] @ one.weight[g, r], rcond=None)[0]
        np.testing.assert_allclose(values[g, r, there], best, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 1, 9), (1, 1, 40), (1, 1, 9)])
def test_one_row_descends_as_any_other(shape: tuple[int, int, int]) -> None:
    """A sweep works on copies, also where one row makes a column and a row the same run of memory."""
    groups, rows, width = shape
    one = case(seed=5, groups=groups, rows=rows, width=width, samples=4 * width)
    problem = quadratic(one)
    scale = np.full((groups, rows), 0.3)
    codes = np.clip(np.rint(one.weight / 0.3), LOW, HIGH)
    before = problem.error(codes * 0.3)
    twice = descend_codes(codes, scale, problem.target, problem.matrix, LOW, HIGH, sweeps=3)
    assert (problem.error(twice * 0.3) <= before + 1e-12).all() and not np.array_equal(twice, codes)
