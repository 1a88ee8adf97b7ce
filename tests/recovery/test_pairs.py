"""Moved pairs against all codes of short rows; no pair left that helps; masks and ranges kept."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery import pairs
from hwc_onnx.recovery.pairs import move_pairs
from tests.recovery.problems import descend_codes
from tests.recovery.test_exchange import problem

LOW, HIGH = -2, 1


def descended(seed: int, width: int = 8, rows: int = 5, share: float = 1.0):
    found = problem(width, rows, 2, seed)
    keep = np.random.default_rng(seed).random(found.target.shape) < share
    scale = np.abs(found.target).max(axis=2) / 2
    start = np.clip(np.rint(found.target / scale[:, :, None]), LOW, HIGH) * keep
    codes = descend_codes(start, scale, found.target, found.matrix, LOW, HIGH, keep, 20)
    low, high = (np.full(scale.shape, float(bound)) for bound in (LOW, HIGH))
    return found, keep, scale, codes, low, high


def error(found, codes, scale):
    return found.error(codes * scale[:, :, None])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 0.6]))
def test_no_pair_that_helps_is_left(seed: int, share: float) -> None:
    found, keep, scale, codes, low, high = descended(seed, share=share)
    moved = move_pairs(codes, scale, found.target, found.matrix, low, high, keep, pool=8, most=200)
    assert moved.min() >= LOW and moved.max() <= HIGH and not moved[~keep].any()
    reached = error(found, moved, scale)
    assert (reached <= error(found, codes, scale) + 1e-9).all()
    for i, j in product(range(8), range(8)):
        if i != j:
            other = moved.copy()
            other[:, :, i] += 1
            other[:, :, j] -= 1
            allowed = (other.min(axis=2) >= LOW) & (other.max(axis=2) <= HIGH) & keep[:, :, i] & keep[:, :, j]
            assert (error(found, other, scale) >= reached * (1 - 1e-4) - 1e-9)[allowed].all()


def left_above_best(rule=move_pairs) -> float:
    """Error above that of the best codes, of what coordinate descent leaves above it."""
    above, started = 0.0, 0.0
    every = np.array(list(product(range(LOW, HIGH + 1), repeat=6)), dtype=np.float64)
    for seed in range(12):
        found, keep, scale, codes, low, high = descended(seed, width=6)
        after = error(found, rule(codes, scale, found.target, found.matrix, low, high, keep), scale)
        before = error(found, codes, scale)
        for group, row in np.ndindex(after.shape):
            difference = found.target[group, row] - every * scale[group, row]
            best = np.einsum("nd,nd->n", difference @ found.matrix[group], difference).min()
            above += after[group, row] - best
            started += before[group, row] - best
    return above / started


def test_pairs_come_closer_to_the_best_codes() -> None:
    assert left_above_best() < 0.65


def test_pairs_without_their_common_part_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: columns that go together are taken for independent ones, so that no pair seems to help."""

    def diagonal(codes, scale, target, matrix, low, high, keep):
        alone = np.einsum("gdd->gd", matrix)[:, :, None] * np.eye(matrix.shape[1])
        return move_pairs(codes, scale, target, alone, low, high, keep)

    assert not left_above_best(diagonal) < 0.65


def test_rows_of_one_code_and_empty_masks_are_left() -> None:
    found, keep, scale, codes, low, high = descended(1)
    still = move_pairs(codes, scale, found.target, found.matrix, low, high, np.zeros_like(keep))
    np.testing.assert_array_equal(still, codes)
    assert pairs.POOL > 1
    one = problem(1, 3, 1, 0)
    flat = np.zeros((1, 3, 1))
    ones = np.ones((1, 3))
    np.testing.assert_array_equal(move_pairs(flat, ones, one.target, one.matrix, -ones, ones), flat)
