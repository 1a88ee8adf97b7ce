"""Blocks of weights chosen while the row is repaired, against least squares on the samples and all choices of small rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwc_onnx.pruning.base import keep_blocks, runs_of, spread, summed
from hwc_onnx.recovery import block_masks
from hwc_onnx.recovery.block_masks import select_blocks, side_by_side
from hwc_onnx.recovery.exchange import exchanged, solved
from hwc_onnx.recovery.obs import obs_select
from hwc_onnx.recovery.quadratic import Quadratic
from tests.recovery.problems import case, quadratic
from tests.recovery.test_exchange import least_error, problem

F64 = NDArray[np.float64]


def refit(x: F64, row: F64, fixed: list[int]) -> F64:
    """The row with some columns zero and the others refitted to its outputs on the samples `x` [n, d]."""
    free = [j for j in range(len(row)) if j not in fixed]
    result = np.zeros(len(row))
    result[free] = np.linalg.lstsq(x[:, free], x @ row, rcond=None)[0]
    return result


def ordered(found: Quadratic, runs: NDArray[np.int64]) -> F64:
    return side_by_side(found.matrix, found.factor, runs)


def by_least_squares(
    rows: F64, x: F64, runs: NDArray[np.int64], ratio: float, spans: list[tuple[int, int]]
) -> NDArray[np.bool_]:
    """Blocks chosen span by span for what zeroing them costs where only the columns from the block on may answer."""
    gone: list[list[int]] = [[] for _ in rows]
    taken = 0
    members = [run[run >= 0].tolist() for run in runs]
    for first, last in spans:
        before = [j for number in range(first) for j in members[number]]
        costs = []
        for r, row in enumerate(rows):
            # columns before the span stay as the sweep left them: zero, or at their value
            current = row.copy()
            done: list[int] = []
            for number in range(first):
                for j in members[number]:
                    done.append(j)
                    value = 0.0 if j in gone[r] else current[j]
                    free = [k for k in range(len(row)) if k not in done]
                    current[j] = value
                    if free:
                        current[free] = np.linalg.lstsq(x[:, free], x @ (row - spread_to(current, done)), rcond=None)[0]
            for number in range(first, last):
                inside = [j for k in range(first, number) for j in members[k]]
                block = members[number]
                free = [k for k in range(len(row)) if k not in before + inside + block]
                push = x[:, block] @ current[block]
                left = push if not free else push - x[:, free] @ np.linalg.lstsq(x[:, free], push, rcond=None)[0]
                costs.append((float(left @ left), r, number))
        total = round(ratio * len(rows) * last)
        for _, r, number in sorted(costs)[: total - taken]:
            gone[r] += members[number]
        taken = total
    return np.array([[j not in gone[r] for j in range(rows.shape[1])] for r in range(len(rows))])


def spread_to(values: F64, places: list[int]) -> F64:
    found = np.zeros(len(values))
    found[places] = values[places]
    return found


@pytest.mark.parametrize(("channels", "taps", "span", "ratio"), [(8, 1, 128, 0.5), (4, 2, 4, 0.5), (6, 2, 128, 0.4), (5, 1, 2, 0.7)])
def test_blocks_go_for_what_least_squares_says_they_cost(
    channels: int, taps: int, span: int, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_masks, "SELECTION_BLOCK", span)
    one = case(4, rows=5, width=channels * taps)
    runs = runs_of(2, taps, channels * taps)
    keep, values = select_blocks(one.weight, ordered(quadratic(one), runs), runs, ratio)
    spans = block_masks.blocks(len(runs), max(1, span // 2))
    expected = by_least_squares(one.weight[0], one.x[0], runs, ratio, spans)
    np.testing.assert_array_equal(keep[0], expected)
    assert not values[~keep].any()
    # broken twin: blocks ranked by the size of their weights
    plain = keep_blocks(one.weight[0] ** 2, ratio, runs)
    assert not np.array_equal(plain, expected)


def test_values_are_those_that_later_columns_answer_with() -> None:
    """Blocks of one, in the natural order of columns: the sweep of single weights."""
    one = case(5, groups=2, rows=4, width=9)
    found = quadratic(one)
    runs = runs_of(1, 1, 9)
    keep, values = select_blocks(one.weight, ordered(found, runs), runs, 0.4)
    single, answered = obs_select(one.weight, found.factor, 0.4)
    np.testing.assert_array_equal(keep, single)
    np.testing.assert_allclose(values, answered, rtol=1e-8, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 5), st.floats(0, 0.95), st.integers(0, 10**6))
def test_each_block_is_kept_or_zero_and_their_number_is_exact(
    channels: int, taps: int, size: int, ratio: float, seed: int
) -> None:
    found = problem(channels * taps, 3, 2, seed)
    runs = runs_of(size, taps, channels * taps)
    keep, _ = select_blocks(found.target, ordered(found, runs), runs, ratio)
    assert sorted(runs[runs >= 0].tolist()) == list(range(channels * taps))
    blocks = summed(keep.astype(float), runs)
    assert np.isin(blocks, [0, *(runs >= 0).sum(axis=1)]).all()
    assert (blocks == 0).sum() == min(round(ratio * blocks.size), blocks.size - 1)
    np.testing.assert_array_equal(spread(blocks > 0, runs, channels * taps), keep)


def shares(rule=exchanged) -> tuple[float, float]:
    """Error above that of the best blocks, of the start's; and the share of rows at the best blocks."""
    above = started = hits = rows = 0.0
    for seed in range(20):
        found = problem(16, 5, 1, seed)
        runs = runs_of(2, 1, 16)
        keep, values = select_blocks(found.target, ordered(found, runs), runs, 0.5)
        after, better = rule(values, found.target, found.matrix, found.factor, keep, runs, whole=True)
        assert (summed(after.astype(float), runs) % 2 == 0).all()
        assert (after.sum(axis=2) == keep.sum(axis=2)).all()
        for row in range(5):
            target, count = found.target[0, row], int(keep[0, row].sum()) // 2
            if count in (0, 8):
                continue
            kept = [np.concatenate([runs[i] for i in some]) for some in combinations(range(8), count)]
            best = min(least_error(target, found.matrix[0], np.sort(some)) for some in kept)
            above += float(found.error(better)[0, row]) - best
            started += least_error(target, found.matrix[0], np.flatnonzero(keep[0, row])) - best
            hits += least_error(target, found.matrix[0], np.flatnonzero(after[0, row])) < best * (1 + 1e-6)
            rows += 1
    return above / started, hits / rows


def test_exchanged_blocks_come_close_to_the_best_of_all() -> None:
    left, hits = shares()
    assert left < 0.4 and hits > 0.7


def test_blocks_that_stay_where_they_are_would_be_noticed() -> None:
    """Broken twin: nothing is exchanged, what is kept is solved for."""

    def stays(values: F64, target: F64, matrix: F64, factor: F64, keep: NDArray[np.bool_], runs: object, whole: bool):
        return keep, solved(values, target, matrix, keep, 40)

    left, hits = shares(stays)
    assert not (left < 0.4 and hits > 0.7)


def test_better_than_blocks_of_least_weights() -> None:
    """What the choice is for: on correlated inputs a repaired layer errs less than with the smallest blocks gone."""
    ratios = []
    for seed in range(10):
        found = problem(32, 16, 1, seed)
        runs = runs_of(4, 1, 32)
        keep, _ = select_blocks(found.target, ordered(found, runs), runs, 0.5)
        plain = keep_blocks(found.target[0] ** 2, 0.5, runs)[None]
        ratios.append(_error(found, keep) / _error(found, plain))
    assert np.median(ratios) < 0.9


def _error(found: Quadratic, keep: NDArray[np.bool_]) -> float:
    return float(found.error(solved(found.target, found.target, found.matrix, keep, 60)).sum())
