"""Rounding in single precision against the same in double precision."""

from __future__ import annotations

import tracemalloc
from itertools import chain

import numpy as np
import pytest

from hwc_onnx.recovery import rounding
from hwc_onnx.recovery.quadratic import Quadratic, quadratic_of
from hwc_onnx.recovery.rounding import Job, Variant, round_jobs
from hwc_onnx.recovery.scales import code_range, storable
from hwc_onnx.recovery.statistics import F64, Moments

WIDTH = 160


def settled(scale: F64) -> F64:
    return storable(scale, tied=False)


def problem_of(weights: float, inputs: float, rows: int = 12) -> Quadratic:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, WIDTH)) @ (np.eye(WIDTH) + 0.2 * rng.normal(size=(WIDTH, WIDTH))) * inputs
    moments = Moments((x.T @ x)[None], x.sum(axis=0)[None], len(x))
    return quadratic_of(rng.normal(size=(1, rows, WIDTH)) * weights, moments, centred=True)


def errors(problem: Quadratic) -> list[float]:
    jobs = [Job(problem.target, None, [code_range(bits)]) for bits in (8, 4, 2)]
    made = round_jobs(problem, jobs, settled)
    power = float(np.einsum("grd,gde,gre->", problem.target, problem.matrix, problem.target))
    return [min(float(problem.error(variant.values()).sum()) for variant in variants) / power for variants in made]


@pytest.mark.parametrize(("weights", "inputs"), [(0.05, 1.0), (1e-12, 1e14), (1e14, 1e-12), (3.0, 1e22)])
def test_single_precision_finds_codes_as_good(weights: float, inputs: float, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(weights, inputs)
    single = errors(problem)
    monkeypatch.setattr(rounding, "WIDE", WIDTH + 1)
    assert single == pytest.approx(errors(problem), rel=0.02)


def test_single_precision_without_scaling_leaves_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: the numbers as they are, in single precision."""
    problem = problem_of(3.0, 1e22)

    def unscaled(problem: Quadratic, single: bool) -> tuple[Quadratic, float]:
        with np.errstate(over="ignore"):
            parts = (problem.target, problem.matrix, problem.factor)
            return Quadratic(*(part.astype(np.float32) for part in parts)), 1.0  # type: ignore[arg-type]

    monkeypatch.setattr(Quadratic, "scaled", unscaled)
    with np.errstate(all="ignore"):
        broken = errors(problem)
    monkeypatch.undo()
    assert not np.allclose(broken, errors(problem), rtol=0.02)


def test_scales_are_those_that_can_be_stored() -> None:
    problem = problem_of(0.05, 1.0)
    for variants in round_jobs(problem, [Job(problem.target, None, [(-7, 7)])], settled):
        assert all(isinstance(variant, Variant) for variant in variants)
        for variant in variants:
            assert variant.scale is not None and np.array_equal(variant.scale, variant.scale.astype(np.float32))


def test_rows_of_zeros_stay_zeros() -> None:
    problem = problem_of(0.0, 1.0)
    for variants in round_jobs(problem, [Job(problem.target, None, [(-7, 7)])], settled):
        for variant in variants:
            assert not variant.values().any() and np.isfinite(variant.scale).all()  # type: ignore[arg-type]


def test_pairs_move_in_the_range_that_suits_each_row() -> None:
    """The last variant of a job is no worse on any row than the best of those descended, in whatever range."""
    problem = problem_of(0.05, 1.0)
    ranges = [(-1, 1), (-2, 1), (-1, 2)]

    (made,) = round_jobs(problem, [Job(problem.target, None, ranges)], settled)
    descended, paired = made[len(ranges) : 2 * len(ranges)], made[-1]
    assert len(made) == 2 * len(ranges) + 1
    error = np.stack([problem.error(one.values()) for one in descended])
    assert np.all(problem.error(paired.values()) <= error.min(axis=0) * (1 + 1e-4))
    assert len(set(error.argmin(axis=0).reshape(-1))) > 1, "every row has the same best range: nothing was chosen"
    for one in ranges:  # broken twin: one range for all rows
        (alone,) = round_jobs(problem, [Job(problem.target, None, [one])], settled)
        assert not np.all(problem.error(alone[-1].values()) <= error.min(axis=0) * (1 + 1e-4))


@pytest.mark.parametrize("rows", [1, 12])
def test_jobs_do_not_depend_on_what_they_are_stacked_with(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(0.05, 1.0, rows)
    keep = np.random.default_rng(1).random(problem.target.shape) < 0.5
    jobs = [
        Job(problem.target, None, [(-127, 127)]),
        Job(problem.target * keep, keep, [(-1, 1), (-2, 1), (-1, 2)]),
        Job(problem.target, None, [(-7, 7), (-8, 7)]),
    ]

    together = round_jobs(problem, jobs, settled)
    monkeypatch.setattr(rounding, "STACK_BYTES", problem.target.size * 4)
    for expected, variants in zip(together, round_jobs(problem, jobs, settled), strict=True):
        assert len(variants) == len(expected)
        for one, other in zip(variants, expected, strict=True):
            assert np.array_equal(one.codes, other.codes)
            assert one.scale is not None and other.scale is not None and np.array_equal(one.scale, other.scale)


def joined_in_turn(monkeypatch: pytest.MonkeyPatch, rows: int) -> tuple[Quadratic, list[list[Variant]], list[list[Variant]]]:
    """A problem, its jobs in one piece and some rows at a time."""
    problem = problem_of(0.05, 1.0)
    keep = np.random.default_rng(1).random(problem.target.shape) < 0.5
    jobs = [Job(problem.target, None, [(-127, 127)]), Job(problem.target * keep, keep, [(-1, 1), (-2, 1), (-1, 2)])]
    whole = round_jobs(problem, jobs, settled)
    monkeypatch.setattr(rounding, "STACK_BYTES", rows * WIDTH * 4)
    return problem, whole, round_jobs(problem, jobs, settled)


@pytest.mark.parametrize("rows", [1, 5, 11])
def test_rows_of_a_large_layer_go_some_at_a_time(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, whole, parts = joined_in_turn(monkeypatch, rows)
    assert [len(job) for job in parts] == [len(job) for job in whole]
    for one, other in zip(chain(*parts), chain(*whole), strict=True):
        np.testing.assert_allclose(problem.error(one.values()), problem.error(other.values()), rtol=0.1)


def test_rows_joined_in_another_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin."""
    join = rounding._joined
    monkeypatch.setattr(rounding, "_joined", lambda pieces: join(pieces[::-1]))
    problem, whole, parts = joined_in_turn(monkeypatch, 5)
    assert not np.allclose(problem.error(parts[0][0].values()), problem.error(whole[0][0].values()), rtol=0.1)


def test_rows_of_a_large_layer_take_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(0.05, 1.0, 3000)
    jobs = [Job(problem.target, None, [(-1, 1), (-2, 1), (-1, 2)])]

    def peak() -> int:
        tracemalloc.start()
        round_jobs(problem, jobs, settled)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    whole = peak()
    monkeypatch.setattr(rounding, "STACK_BYTES", 100 * WIDTH * 4)
    assert 3 * peak() < whole


def grouped() -> Quadratic:
    """Groups whose rows suit different code ranges."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(6, 500, 25)) @ (np.eye(25) + 0.2 * rng.normal(size=(6, 25, 25)))
    moments = Moments(x.transpose(0, 2, 1) @ x, x.sum(axis=1), 500)
    return quadratic_of(rng.exponential(size=(6, 1, 25)) * np.array([1, -1, 1, -1, 1, -1])[:, None, None], moments, centred=True)


def test_each_group_has_the_code_range_that_suits_it() -> None:
    problem, ranges = grouped(), [(-2, 1), (-1, 2)]
    (made,) = round_jobs(problem, [Job(problem.target, None, ranges)], settled)
    (tied,) = round_jobs(problem, [Job(problem.target, None, ranges)], settled, tied=True)
    least = np.stack([problem.error(one.values()) for one in made[2:4]]).min(axis=0)
    assert np.all(problem.error(made[-1].values()) <= least * (1 + 1e-4))
    assert not np.all(problem.error(tied[-1].values()) <= least * (1 + 1e-4)), "one range for all groups is as good"
