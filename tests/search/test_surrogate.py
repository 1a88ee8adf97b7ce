from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import isotonic_regression, least_squares
from scipy.stats import spearmanr

from hwc_onnx.search import surrogate
from hwc_onnx.search.drop_map import DropMap, isotonic
from hwc_onnx.search.surrogate import DamageTable, Parameters, Surrogate
from tests.search.synthetic import SyntheticProblem


def _measured(problem: SyntheticProblem, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    plans = []
    for _ in range(count):
        choices = problem.start.copy()
        moved = rng.choice(len(choices), size=len(choices) // 3, replace=False)
        choices[moved] = rng.integers(0, np.maximum(problem.space.sizes[moved] // 2, 1))
        plans.append(problem.space.canonical(choices))
    damage = [problem.evaluate(plan).damage for plan in plans]
    return np.array(plans), np.log(damage)


def test_fit_on_trials_predicts_unseen_plans_better_than_the_table() -> None:
    problem = SyntheticProblem(layers=10, images=800, seed=3)
    table = DamageTable(problem)
    plans, damage = _measured(problem, 60, 0)
    unseen, truth = _measured(problem, 40, 1)
    rng = np.random.default_rng(0)
    prior = Surrogate.fit(table, plans[:0], damage[:0], rng)
    fitted = Surrogate.fit(table, plans, damage, rng)
    error = [float(np.sqrt(np.mean((s.predict(unseen)[0] - truth) ** 2))) for s in (prior, fitted)]
    assert error[1] < 0.5 * error[0]
    assert spearmanr(fitted.predict(unseen)[0], truth).statistic > 0.9


def test_fit_on_shuffled_damage_loses_the_prediction() -> None:
    """The broken twin: the same fit on damages that belong to other plans must not predict."""
    problem = SyntheticProblem(layers=10, images=800, seed=3)
    plans, damage = _measured(problem, 60, 0)
    unseen, truth = _measured(problem, 40, 1)
    rng = np.random.default_rng(0)
    shuffled = Surrogate.fit(DamageTable(problem), plans, rng.permutation(damage), rng)
    error = float(np.sqrt(np.mean((shuffled.predict(unseen)[0] - truth) ** 2)))
    fitted = Surrogate.fit(DamageTable(problem), plans, damage, rng)
    assert error > 2.0 * float(np.sqrt(np.mean((fitted.predict(unseen)[0] - truth) ** 2)))


def test_predict_at_measured_plan_is_certain_and_right() -> None:
    problem = SyntheticProblem(layers=10, images=800, seed=4)
    plans, damage = _measured(problem, 50, 0)
    fitted = Surrogate.fit(DamageTable(problem), plans, damage, np.random.default_rng(0))
    mean, doubt = fitted.predict(plans)
    _far, unsure = fitted.predict(problem.space.canonical(problem.space.sizes - 1)[None, :])
    assert np.abs(mean - damage).max() < 0.1
    assert doubt.max() < unsure[0]


def test_distance_is_zero_to_itself_and_grows_with_changes() -> None:
    problem = SyntheticProblem(layers=6, images=64)
    fitted = Surrogate.fit(
        DamageTable(problem), np.zeros((0, len(problem.units)), dtype=np.int64), np.zeros(0), np.random.default_rng(0)
    )
    base = problem.space.canonical(problem.space.sizes // 2)
    near, far = base.copy(), problem.space.canonical(problem.space.sizes - 1)
    near[6] = 0
    distances = fitted.distance(base[None, :], np.array([base, near, far]))[0]
    assert distances[0] == pytest.approx(0.0, abs=1e-6)
    assert 0 < distances[1] < distances[2]


def test_isotonic_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, weights = rng.normal(size=15), rng.uniform(0.1, 2.0, 15)
        expected = isotonic_regression(values, weights=weights).x
        assert np.allclose(isotonic(values, weights), expected)
        assert not np.allclose(isotonic(values, np.ones(15)), expected)


def test_drop_map_recovers_a_noisy_monotone_curve_and_its_inverse() -> None:
    rng = np.random.default_rng(0)
    damage = rng.uniform(0.0, 0.2, 80)
    truth = 10.0 * damage
    curve = DropMap.fit(damage, np.zeros(80), truth + rng.normal(0.0, 0.2, 80), 1.0, 0.02)
    assert np.abs(curve.drop(damage) - truth).max() < 0.35
    assert np.all(np.diff(curve.drop(np.linspace(0.0, 0.5, 50))) >= 0.0)
    assert curve.drop(np.array([curve.damage(1.0)]))[0] == pytest.approx(1.0, abs=0.05)
    assert curve.scatter == pytest.approx(0.2, abs=0.08)


def test_drop_map_signed_shift_explains_drops_that_damage_cannot() -> None:
    rng = np.random.default_rng(0)
    damage = rng.uniform(0.02, 0.1, 60)
    shift = rng.normal(0.0, 0.01, 60)
    drop = 8.0 * damage + 30.0 * shift
    with_shift = DropMap.fit(damage, shift, drop, 1.0, 0.05)
    without = DropMap.fit(damage, np.zeros(60), drop, 1.0, 0.05)
    assert with_shift.shift > 10.0
    assert with_shift.scatter < 0.6 * without.scatter


def test_drop_map_without_trials_is_the_assumed_line() -> None:
    curve = DropMap.fit(np.zeros(0), np.zeros(0), np.zeros(0), 1.0, 0.04)
    assert curve.drop(np.array([0.02, 0.04]))[1] == pytest.approx(1.0)
    assert curve.damage(0.5) == pytest.approx(0.02)


SCALE = 0.05


def _with_floor(floor: float) -> tuple[DamageTable, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Plans of a network that loses a little whatever is done, the baseline among them: to fit to, and near the limit."""
    problem = SyntheticProblem(layers=10, images=800, seed=3)
    table = DamageTable(problem)
    table.damage *= SCALE
    plans, damage = _measured(problem, 24, 0)
    unseen, truth = _measured(problem, 40, 1)
    plans = np.concatenate([problem.start[None, :], plans])
    damage = np.concatenate([[np.log(problem.evaluate(problem.start).damage)], damage])
    damage, truth = (np.logaddexp(found + np.log(SCALE), np.log(floor)) for found in (damage, truth))
    return table, plans, damage, unseen, truth


def _error(table: DamageTable, plans: np.ndarray, damage: np.ndarray, unseen: np.ndarray, truth: np.ndarray) -> float:
    fitted = Surrogate.fit(table, plans, damage, np.random.default_rng(0))
    return float(np.sqrt(np.mean((fitted.line(unseen) - truth) ** 2)))


def test_damage_that_no_unit_explains_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    given = _with_floor(5e-4)
    learned = _error(*given)
    monkeypatch.setattr(surrogate, "FLOOR_SPREAD", 1e-6)  # the broken twin: gains have to explain it
    assert learned < 0.8 * _error(*given)


def test_parameters_survive_the_vector() -> None:
    rng = np.random.default_rng(0)
    given = Parameters(rng.normal(size=5), rng.normal(size=3), 0.4, 1.3, -7.0)
    found = Parameters.of(given.vector(), 5)
    np.testing.assert_array_equal(found.vector(), given.vector())
    assert (found.offset, found.slope, found.floor) == (0.4, 1.3, pytest.approx(np.exp(-7.0)))


def test_least_squares_find_the_minimum() -> None:
    """Against scipy's, with all residuals written out."""
    table, plans, damage, _, _ = _with_floor(5e-4)
    units, families = len(table.rows), len(table.families)
    prior = Parameters(np.zeros(units), np.zeros(families)).vector()
    spread = np.concatenate([np.full(units, 0.8), np.full(families, 0.4), [1.5, 0.25, 2.0]])

    def residuals(vector: np.ndarray) -> np.ndarray:
        line = surrogate._line(table, plans, Parameters.of(vector, units))
        return np.concatenate([(damage - line) / surrogate.NOISE, (vector - prior) / spread])

    found = surrogate._least_squares(table, plans, damage, np.ones(len(plans)), prior, spread, prior, steps=200)
    best = least_squares(residuals, prior, max_nfev=500)
    assert (residuals(found) ** 2).sum() == pytest.approx(2 * best.cost, rel=1e-3)
    few = surrogate._least_squares(table, plans, damage, np.ones(len(plans)), prior, spread, prior, steps=1)
    assert (residuals(few) ** 2).sum() > 1.01 * 2 * best.cost, "the test cannot fail"


def test_drop_map_steeper_than_assumed_is_believed_after_one_plan_beyond_the_limit() -> None:
    assumed = DropMap.fit(np.zeros(0), np.zeros(0), np.zeros(0), 1.0, 0.04).damage(1.0)
    steep = DropMap.fit(np.array([0.02]), np.zeros(1), np.array([5.0]), 1.0, 0.04).damage(1.0)
    gentle = DropMap.fit(np.array([0.02]), np.zeros(1), np.array([0.2]), 1.0, 0.04).damage(1.0)
    assert steep < 0.6 * assumed and gentle >= 0.9 * assumed
