"""AdaRound against every choice of up and down on short rows, its broken twin, its bounds, masks and repeatability."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hwc_onnx.recovery import adaround
from hwc_onnx.recovery.adaround import code_bounds, polished_rows, up_or_down
from hwc_onnx.recovery.quadratic import Quadratic
from hwc_onnx.recovery.rounding import Variant
from hwc_onnx.recovery.scales import refit_scale, storable
from tests.recovery.problems import F64, case, quadratic

WIDTH = 8
HIGH = 3


def nearest(seed: int, rows: int = 12) -> tuple[Quadratic, Variant, F64, F64]:
    """A problem of short rows and its codes rounded to nearest."""
    one = case(seed, rows=rows, width=WIDTH)
    scale = np.abs(one.weight).max(axis=2) / HIGH
    codes = np.clip(np.rint(one.weight / scale[:, :, None]), -HIGH, HIGH).astype(np.int8)
    return quadratic(one), Variant(codes, scale), np.full(scale.shape, -HIGH), np.full(scale.shape, HIGH)


def best_error(problem: Quadratic, start: Variant) -> F64:
    """Least error of each row over all choices of the code below or above the target, scales as they are."""
    assert start.scale is not None
    floor = np.clip(np.floor(problem.target / start.scale[:, :, None]), -HIGH, HIGH - 1)
    choices = (
        problem.error((floor + np.array(choice)) * start.scale[:, :, None])
        for choice in itertools.product((0.0, 1.0), repeat=WIDTH)
    )
    least: F64 = np.min(list(choices), axis=0)
    return least


def reached(problem: Quadratic, start: Variant, codes: F64, factor: float) -> float:
    """Share of rows within `factor` of the best choice."""
    assert start.scale is not None
    return float(np.mean(problem.error(codes * start.scale[:, :, None]) <= factor * best_error(problem, start)))


def shares(turn: float = 1.0) -> tuple[float, float]:
    """Rows within 5% of the best choice: rounded up or down, and to nearest; the matrix's other parts times `turn`."""
    polished, plain = [], []
    for seed in range(6):
        problem, start, low, high = nearest(seed)
        diagonal = problem.matrix * np.eye(WIDTH)
        seen = Quadratic(problem.target, diagonal + turn * (problem.matrix - diagonal), problem.factor)
        codes, _ = up_or_down(seen, start, low, high, free_scale=False)
        polished.append(reached(problem, start, codes, 1.05))
        plain.append(reached(problem, start, start.codes.astype(np.float64), 1.05))
    return float(np.mean(polished)), float(np.mean(plain))


def test_rounding_reaches_the_best_choice_more_often_than_to_nearest() -> None:
    polished, plain = shares()
    assert polished >= 0.45
    assert polished >= 1.6 * plain


def test_without_what_weights_have_in_common_nothing_is_gained() -> None:
    """Broken twin: with the diagonal alone each weight is best rounded to nearest."""
    polished, plain = shares(turn=0.0)
    assert polished < plain + 0.1


def test_a_free_scale_and_the_descent_behind_it_gain_on_average() -> None:
    gains = []
    for seed in range(6):
        problem, start, low, high = nearest(seed)
        made = polished_rows(problem, start, low, high, None, lambda scale: storable(scale, False))
        least = np.min([problem.error(one.values()) for one in made], axis=0)
        assert start.scale is not None
        refitted = refit_scale(start.codes.astype(np.float64), start.scale, problem.target, problem.matrix)
        gains.append(least.sum() / problem.error(start.codes * refitted[:, :, None]).sum())
    assert np.mean(gains) < 0.6


def test_codes_are_neighbours_within_their_bounds_and_masked_ones_stay_zero() -> None:
    problem, start, low, high = nearest(3)
    keep = np.random.default_rng(0).random(start.codes.shape) < 0.7
    masked = Variant((start.codes * keep).astype(np.int8), start.scale)
    codes, scale = up_or_down(problem, masked, low + 1, high, keep)
    assert not codes[~keep].any()
    assert codes.min() >= -HIGH + 1 and codes.max() <= HIGH
    inside = keep & (masked.codes > -HIGH)
    assert np.abs(codes - masked.codes)[inside].max() == 1
    assert np.all(scale > 0)


def test_the_same_problem_gives_the_same_bytes() -> None:
    problem, start, low, high = nearest(4)
    first, again = (up_or_down(problem, start, low, high) for _ in range(2))
    assert [part.tobytes() for part in first] == [part.tobytes() for part in again]


def test_rows_of_zeros_and_rows_without_error_stay_finite() -> None:
    problem, start, low, high = nearest(5, rows=3)
    assert start.scale is not None
    target = problem.target.copy()
    target[0, 0], target[0, 1] = 0.0, start.values()[0, 1]
    codes = start.codes.copy()
    codes[0, 0] = 0
    found, scale = up_or_down(replace(problem, target=target), Variant(codes, start.scale), low, high)
    assert np.isfinite(found).all() and np.isfinite(scale).all()


@pytest.mark.parametrize(
    ("bits", "codes", "bounds"),
    [(2, [-2, 0, 1], (-2, 1)), (2, [2, 0, -1], (-1, 2)), (3, [-3, 1, 3], (-3, 3)), (4, [-8, 0, 7], (-8, 7))],
)
def test_bounds_are_those_of_the_first_range_that_holds_the_codes(
    bits: int, codes: list[int], bounds: tuple[int, int]
) -> None:
    low, high = code_bounds(np.array([[codes]], dtype=np.int8), bits)
    assert (low.item(), high.item()) == bounds


def test_undecided_weights_are_noticed_with_too_little_weight_on_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: without the second term the relaxed optimum is rounded as it lies, no better than to nearest."""
    decided, _ = shares()
    monkeypatch.setattr(adaround, "WEIGHT", 0.0)
    assert shares()[0] < decided - 0.1
