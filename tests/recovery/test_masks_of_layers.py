"""Masks of whole layers: the exact one against brute force over everything, exchanges across rows against those within rows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery.across_rows import across_rows
from hwc_onnx.recovery.exact_masks import exact_mask, row_tables, shared_out
from hwc_onnx.recovery.exchange import exchanged, row_errors, solved
from hwc_onnx.recovery.obs import obs_select
from tests.recovery.problems import F64
from tests.recovery.test_exchange import least_error, problem


def error_of(target: F64, matrix: F64, keep: np.ndarray) -> float:
    """The error of a mask [groups, rows, d] with the rest solved for, from the normal equations."""
    return sum(
        least_error(target[group, row], matrix[group], np.flatnonzero(keep[group, row]))
        for group, row in np.ndindex(keep.shape[:2])
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(0, 8), st.sampled_from([(1, 2), (2, 1)]))
def test_no_mask_is_better_than_the_exact_one(seed: int, zeros: int, shape: tuple[int, int]) -> None:
    found = problem(4, shape[1], shape[0], seed)
    keep = exact_mask(row_tables(found.target, found.matrix), zeros)
    assert int((~keep).sum()) == zeros
    every = (np.array(bits).reshape(keep.shape) for bits in product([False, True], repeat=keep.size) if sum(bits) == keep.size - zeros)
    best = min(error_of(found.target, found.matrix, mask) for mask in every)
    assert error_of(found.target, found.matrix, keep) == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_the_weights_of_least_magnitude_are_not_the_exact_mask() -> None:
    """Broken twin."""
    found = problem(6, 4, 1, 5)
    small = np.ones(found.target.size, dtype=bool)
    small[np.argsort(np.abs(found.target).ravel())[:12]] = False
    exact = exact_mask(row_tables(found.target, found.matrix), 12)
    ratio = error_of(found.target, found.matrix, small.reshape(exact.shape)) / error_of(found.target, found.matrix, exact)
    assert ratio > 1.05


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_tables_of_rows_are_the_errors_of_their_masks(seed: int) -> None:
    found = problem(5, 3, 2, seed)
    errors, sets = row_tables(found.target, found.matrix)
    for group, row, count in np.ndindex(errors.shape):
        kept = [place for place in range(5) if not sets[group, row, count] >> place & 1]
        assert len(kept) == 5 - count
        best = least_error(found.target[group, row], found.matrix[group], np.array(kept, dtype=np.int64))
        assert errors[group, row, count] == pytest.approx(best, rel=1e-8, abs=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 9))
def test_shares_are_the_best_of_all(seed: int, total: int) -> None:
    errors = np.random.default_rng(seed).random((3, 4)).cumsum(axis=1)
    counts = shared_out(errors, total)
    assert counts.sum() == total
    sums = [errors[np.arange(3), each].sum() for each in product(range(4), repeat=3) if sum(each) == total]
    assert errors[np.arange(3), counts].sum() == pytest.approx(min(sums))


def test_more_zeros_than_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="13 zeros do not fit into 3 rows of 4"):
        shared_out(np.zeros((3, 5)), 13)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.75]))
def test_zeros_that_change_rows_keep_their_number_and_never_raise_the_error(seed: int, ratio: float) -> None:
    found = problem(24, 6, 2, seed)
    keep, values = obs_select(found.target, found.factor, ratio)
    keep, values = exchanged(values, found.target, found.matrix, found.factor, keep)
    other, moved = across_rows(values, found.target, found.matrix, found.factor, keep)
    assert other.sum() == keep.sum()
    assert not moved[~other].any()
    assert found.error(moved).sum() <= found.error(values).sum() * (1 + 1e-12)


def test_zeros_go_to_the_row_that_matters_little() -> None:
    """One row a hundredth of the other: all its weights go first."""
    found = problem(16, 2, 1, 1)
    target = found.target * np.array([1.0, 0.01])[None, :, None]
    keep, values = obs_select(target, found.factor, 0.5)
    keep[:] = True
    keep[:, :, :8] = False
    values = solved(target, target, found.matrix, keep)
    other, moved = across_rows(values, target, found.matrix, found.factor, keep)
    assert other[0, 0].sum() > 12 and other[0, 1].sum() < 4
    assert row_errors(moved, target, found.matrix).sum() < 0.2 * row_errors(values, target, found.matrix).sum()
