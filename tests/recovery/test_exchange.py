"""Exchanged masks against all masks of small rows, and values against the normal equations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwc_onnx.pruning.base import keep_pattern, runs_of
from hwc_onnx.recovery import exchange
from hwc_onnx.recovery.exchange import exchanged, solved
from hwc_onnx.recovery.obs import obs_select
from hwc_onnx.recovery.quadratic import Quadratic, upper_factor_of_inverse


def problem(width: int, rows: int, groups: int, seed: int) -> Quadratic:
    """Rows over correlated inputs, as neighbouring pixels are."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((groups, width, width)) * 0.3 ** np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
    matrix = mixing @ mixing.transpose(0, 2, 1) + 0.05 * np.eye(width)
    return Quadratic(rng.standard_normal((groups, rows, width)), matrix, upper_factor_of_inverse(matrix))


def least_error(target: NDArray[np.float64], matrix: NDArray[np.float64], kept: NDArray[np.int64]) -> float:
    """The error of the best values on the kept positions, from the normal equations."""
    values = np.zeros_like(target)
    values[kept] = np.linalg.solve(matrix[np.ix_(kept, kept)], matrix[kept] @ target)
    return float((target - values) @ matrix @ (target - values))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.2, 0.8))
def test_values_are_those_of_the_normal_equations(seed: int, share: float) -> None:
    found = problem(12, 5, 2, seed)
    keep = np.random.default_rng(seed).random(found.target.shape) < share
    keep[:, :, 0] = True
    values = solved(np.where(keep, found.target, 0.0), found.target, found.matrix, keep, 60)
    assert not values[~keep].any()
    for group, row in np.ndindex(keep.shape[:2]):
        best = least_error(found.target[group, row], found.matrix[group], np.flatnonzero(keep[group, row]))
        assert found.error(values)[group, row] == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_no_step_makes_a_row_worse() -> None:
    found = problem(40, 6, 1, 3)
    keep = np.random.default_rng(3).random(found.target.shape) < 0.5
    before = found.error(np.where(keep, found.target, 0.0))
    for steps in range(1, 12):
        after = found.error(solved(found.target, found.target, found.matrix, keep, steps))
        assert (after <= before * (1 + 1e-12)).all()
        before = after


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.75]))
def test_exchange_keeps_the_count_of_each_row_and_never_raises_its_error(seed: int, ratio: float) -> None:
    found = problem(24, 8, 2, seed)
    keep, values = obs_select(found.target, found.factor, ratio)
    start = found.error(solved(values, found.target, found.matrix, keep, 100))
    after, better = exchanged(values, found.target, found.matrix, found.factor, keep)
    assert (after.sum(axis=2) == keep.sum(axis=2)).all()
    assert not better[~after].any()
    assert (found.error(better) <= start * 1.001 + 1e-9).all()


def shares(rule=exchanged) -> tuple[float, float]:
    """Error above the best mask's, of the start's: summed over rows; and the share of rows at the best mask."""
    above, started, hits, rows = 0.0, 0.0, 0, 0
    for seed in range(30):
        found = problem(10, 6, 1, seed)
        keep, values = obs_select(found.target, found.factor, 0.5)
        after, better = rule(values, found.target, found.matrix, found.factor, keep)
        for row in range(6):
            target, count = found.target[0, row], int(keep[0, row].sum())
            if count in (0, 10):
                continue
            best = min(least_error(target, found.matrix[0], np.array(kept)) for kept in combinations(range(10), count))
            above += float(found.error(better)[0, row]) - best
            started += least_error(target, found.matrix[0], np.flatnonzero(keep[0, row])) - best
            hits += least_error(target, found.matrix[0], np.flatnonzero(after[0, row])) < best * (1 + 1e-6)
            rows += 1
    return above / started, hits / rows


def test_exchange_comes_close_to_the_best_of_all_masks() -> None:
    left, hits = shares()
    assert left < 0.45 and hits > 0.8


def test_ranking_that_looks_at_values_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: what gives way and what comes back have changed places."""
    ranked = exchange._ranked
    monkeypatch.setattr(exchange, "_ranked", lambda cost, gain, count: ranked(-np.where(np.isinf(cost), -np.inf, cost), gain, count))
    left, hits = shares()
    assert not (left < 0.45 and hits > 0.8)


@pytest.mark.parametrize(("pattern", "channels", "taps"), [((2, 4), 8, 1), ((2, 4), 10, 3), ((4, 8), 16, 9), ((1, 2), 5, 2)])
def test_runs_keep_as_many_as_they_had(pattern: tuple[int, int], channels: int, taps: int) -> None:
    found = problem(channels * taps, 4, 1, 7)
    flat = np.abs(found.target[0])
    keep = keep_pattern(flat, pattern, taps)[None]
    start = found.error(solved(found.target, found.target, found.matrix, keep, 100))
    runs = runs_of(pattern[1], taps, channels * taps)
    after, values = exchanged(found.target, found.target, found.matrix, found.factor, keep, runs)
    assert sorted(runs[runs >= 0].tolist()) == list(range(channels * taps))
    for run in runs:
        inside = run[run >= 0]
        assert len(set((inside % taps).tolist())) == 1
        assert (after[:, :, inside].sum(axis=2) == keep[:, :, inside].sum(axis=2)).all()
    assert (found.error(values) <= start * 1.001 + 1e-9).all()
    assert found.error(values).sum() < 0.9 * start.sum()
