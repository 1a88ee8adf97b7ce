"""OBS sweeps against least squares on the samples, column after column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwc_onnx.recovery import obs
from hwc_onnx.recovery.scales import search_scale
from tests.recovery.problems import F64, Case, case, descend_codes, output_error, quadratic

LOW, HIGH = -3, 3


def refit(x: F64, row: F64, fixed: dict[int, float]) -> F64:
    """The row with some columns fixed and the others refitted to its outputs on the samples `x` [n, d]."""
    free = [j for j in range(len(row)) if j not in fixed]
    result = np.array([fixed.get(j, 0.0) for j in range(len(row))])
    if free:
        result[free] = np.linalg.lstsq(x[:, free], x @ (row - result), rcond=None)[0]
    return result


def swept(one: Case, replace) -> F64:
    """Columns in order: `replace(g, r, j, value)` fixes one, least squares on the samples moves those that follow."""
    result = np.empty_like(one.weight)
    for g, r in np.ndindex(*one.weight.shape[:2]):
        row, fixed = one.weight[g, r], {}
        for j in range(len(row)):
            fixed[j] = replace(g, r, j, refit(one.x[g], row, fixed)[j])
        result[g, r] = [fixed[j] for j in range(len(row))]
    return result


@pytest.mark.parametrize("block", [32, 3, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_obs_mask_moves_later_columns_as_least_squares_does(
    block: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obs, "BLOCK", block)
    one = case(block, groups)
    keep = np.random.default_rng(1).random(one.weight.shape) < 0.5
    found = obs.obs_mask(one.weight, quadratic(one).factor, keep)
    expected = swept(one, lambda g, r, j, value: value * keep[g, r, j])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
    lower = quadratic(one).factor.transpose(0, 2, 1)
    assert not np.allclose(obs.obs_mask(one.weight, lower, keep), expected, rtol=1e-3)


@pytest.mark.parametrize("block", [32, 3])
def test_obs_round_rounds_what_least_squares_left(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obs, "BLOCK", block)
    one = case(2, groups=2)
    scale = np.abs(one.weight).max(axis=2) / HIGH
    keep = np.random.default_rng(2).random(one.weight.shape) < 0.7
    codes = obs.obs_round(one.weight, quadratic(one).factor, keep, scale, LOW, HIGH)

    def rounded(g: int, r: int, j: int, value: float) -> float:
        return float(np.clip(np.rint(value / scale[g, r]), LOW, HIGH) * scale[g, r] * keep[g, r, j])

    np.testing.assert_allclose(codes * scale[:, :, None], swept(one, rounded), rtol=1e-8, atol=1e-10)
    nearest = np.clip(np.rint(one.weight / scale[:, :, None]), LOW, HIGH) * keep
    assert not np.array_equal(codes, nearest)


@pytest.mark.parametrize(("block", "ratio"), [(128, 0.5), (4, 0.3), (2, 0.71), (128, 0.0)])
def test_obs_select_takes_the_weights_that_cost_least_block_by_block(
    block: int, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obs, "SELECTION_BLOCK", block)
    one = case(3, rows=6, width=8)
    keep, values = obs.obs_select(one.weight, quadratic(one).factor, ratio)
    expected, x = np.ones(one.weight[0].shape, dtype=bool), one.x[0]
    work: list[dict[int, float]] = [{} for _ in range(6)]
    for first, last in obs.blocks(8, block):
        current = np.array([refit(x, row, fixed) for row, fixed in zip(one.weight[0], work, strict=True)])
        # what zeroing column j costs when only the columns after it may answer
        cost = np.empty((last - first, 6))
        for j in range(first, last):
            for r in range(6):
                held = {i: current[r, i] for i in range(j)} | {j: 0.0}
                change = current[r] - refit(x, current[r], held)
                cost[j - first, r] = ((x @ change) ** 2).mean()
        count = round(ratio * 6 * last) - round(ratio * 6 * first)
        for place in np.argsort(cost.ravel(), kind="stable")[:count]:
            expected[place % 6, first + place // 6] = False
        for j in range(first, last):
            for r in range(6):
                work[r][j] = refit(x, one.weight[0, r], work[r])[j] * expected[r, j]
    np.testing.assert_array_equal(keep[0], expected)
    np.testing.assert_allclose(values[0], [[w[j] for j in range(8)] for w in work], rtol=1e-7, atol=1e-9)
    assert int((~keep).sum()) == round(ratio * keep.size)


def rounded_both_ways(one: Case, bits: int) -> tuple[F64, F64]:
    """Error on the samples [G, R] of round-to-nearest, and of OBS with descent, at the same scales."""
    problem = quadratic(one)
    high = 2 ** (bits - 1) - 1
    scale = search_scale(one.weight, np.einsum("gdd->gd", problem.matrix), -high, high)
    nearest = np.clip(np.rint(one.weight / scale[:, :, None]), -high, high)
    codes = obs.obs_round(one.weight, problem.factor, None, scale, -high, high)
    codes = descend_codes(codes, scale, one.weight, problem.matrix, -high, high)
    return output_error(one, nearest * scale[:, :, None]), output_error(one, codes * scale[:, :, None])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_obs_rounding_beats_round_to_nearest_on_the_fitted_samples(bits: int) -> None:
    totals = np.array([[e.sum() for e in rounded_both_ways(case(s, 2, 16, 24, 96), bits)] for s in range(12)])
    assert (totals[:, 1] < totals[:, 0]).all()


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_rounding_is_never_better_than_the_best_of_all_codes(seed: int, high: int) -> None:
    """No code vector is better than the one found by trying all of them."""
    one = case(seed, rows=2, width=4, samples=20)
    problem = quadratic(one)
    scale = np.abs(one.weight).max(axis=2) / high
    codes = obs.obs_round(one.weight, problem.factor, None, scale, -high, high)
    grid = np.stack(np.meshgrid(*4 * [np.arange(-high, high + 1)]), axis=-1).reshape(-1, 4)
    for r in range(2):
        every = problem.target[0, r] - grid * scale[0, r]
        best = np.einsum("nd,de,ne->n", every, problem.matrix[0], every).min()
        assert problem.error(codes * scale[:, :, None])[0, r] >= best - 1e-12
