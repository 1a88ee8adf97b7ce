"""Rounding in single precision against the same in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.recovery import rounding
from hwc_onnx.recovery.quadratic import Quadratic, quadratic_of
from hwc_onnx.recovery.rounding import Job, Variant, round_jobs
from hwc_onnx.recovery.scales import code_range, storable
from hwc_onnx.recovery.statistics import F64, Moments

WIDTH = 160


def problem_of(weights: float, inputs: float) -> Quadratic:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, WIDTH)) @ (np.eye(WIDTH) + 0.2 * rng.normal(size=(WIDTH, WIDTH))) * inputs
    moments = Moments((x.T @ x)[None], x.sum(axis=0)[None], len(x))
    return quadratic_of(rng.normal(size=(1, 12, WIDTH)) * weights, moments, centred=True)


def errors(problem: Quadratic) -> list[float]:
    jobs = [Job(problem.target, None, [code_range(bits)]) for bits in (8, 4, 2)]
    made = round_jobs(problem, jobs, lambda scale: storable(scale, tied=False))
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
    for variants in round_jobs(problem, [Job(problem.target, None, [(-7, 7)])], lambda scale: storable(scale, tied=False)):
        assert all(isinstance(variant, Variant) for variant in variants)
        for variant in variants:
            assert variant.scale is not None and np.array_equal(variant.scale, variant.scale.astype(np.float32))


def test_rows_of_zeros_stay_zeros() -> None:
    problem = problem_of(0.0, 1.0)
    for variants in round_jobs(problem, [Job(problem.target, None, [(-7, 7)])], lambda scale: storable(scale, tied=False)):
        for variant in variants:
            assert not variant.values().any() and np.isfinite(variant.scale).all()  # type: ignore[arg-type]


def test_pairs_move_in_the_range_that_suits_each_row() -> None:
    """The last variant of a job is no worse on any row than the best of those descended, in whatever range."""
    problem = problem_of(0.05, 1.0)
    ranges = [(-1, 1), (-2, 1), (-1, 2)]

    def settle(scale: F64) -> F64:
        return storable(scale, tied=False)

    (made,) = round_jobs(problem, [Job(problem.target, None, ranges)], settle)
    descended, paired = made[len(ranges) : 2 * len(ranges)], made[-1]
    assert len(made) == 2 * len(ranges) + 1
    error = np.stack([problem.error(one.values()) for one in descended])
    assert np.all(problem.error(paired.values()) <= error.min(axis=0) * (1 + 1e-4))
    assert len(set(error.argmin(axis=0).reshape(-1))) > 1, "every row has the same best range: nothing was chosen"
    for one in ranges:  # broken twin: one range for all rows
        (alone,) = round_jobs(problem, [Job(problem.target, None, [one])], settle)
        assert not np.all(problem.error(alone[-1].values()) <= error.min(axis=0) * (1 + 1e-4))


def test_jobs_do_not_depend_on_what_they_are_stacked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(0.05, 1.0)
    keep = np.random.default_rng(1).random(problem.target.shape) < 0.5
    jobs = [
        Job(problem.target, None, [(-127, 127)]),
        Job(problem.target * keep, keep, [(-1, 1), (-2, 1), (-1, 2)]),
        Job(problem.target, None, [(-7, 7), (-8, 7)]),
    ]

    def settle(scale: F64) -> F64:
        return storable(scale, tied=False)

    together = round_jobs(problem, jobs, settle)
    monkeypatch.setattr(rounding, "STACK_BYTES", 1)
    for expected, variants in zip(together, round_jobs(problem, jobs, settle), strict=True):
        assert len(variants) == len(expected)
        for one, other in zip(variants, expected, strict=True):
            assert np.array_equal(one.codes, other.codes)
            assert one.scale is not None and other.scale is not None and np.array_equal(one.scale, other.scale)
