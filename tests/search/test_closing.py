from __future__ import annotations

import numpy as np

from hwc_onnx.search.closing import CLOSING, reserved
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem


def searched(trials: int, **options):
    problem = SyntheticProblem(layers=6, images=600, seed=3)
    return run_search(problem, sampler="knapsack", trials=trials, seed=1, **options), problem


def test_closing_measures_steps_towards_the_limit_within_the_budget():
    found, problem = searched(40)
    closing = [record for record in found.history.records if record.origin == CLOSING]
    assert found.spent.evaluations <= 40 and 1 <= len(closing) <= reserved(40) == 4
    # every one was measured to the end although its energy is above the best plan's
    assert all(record.outcome.complete for record in closing)
    assert all(record.outcome.energy >= found.history.best.outcome.energy for record in closing)
    damages = [record.outcome.damage for record in closing]
    assert damages == sorted(damages)


def test_closing_gives_the_gate_a_safer_plan_than_the_best():
    found, problem = searched(40)
    front = found.history.front(without=problem.start)
    assert front[-1] is found.history.best
    assert front[0].outcome.excess(problem.limit_points) < 0.5 * found.history.best.outcome.excess(0.0) - 0.5
    assert not any(np.array_equal(record.choices, problem.start) for record in front)


def test_closing_is_not_repeated_by_a_finished_study(tmp_path):
    path = tmp_path / "study.journal"
    problem = SyntheticProblem(layers=6, images=600, seed=3)
    first = run_search(problem, sampler="knapsack", trials=40, seed=1, storage_path=path)
    again = run_search(problem, sampler="knapsack", trials=40, seed=1, storage_path=path)
    assert len(again.history) == len(first.history)


def test_closing_leaves_a_tiny_budget_alone():
    assert [reserved(n) for n in (1, 9, 10, 25, 200)] == [0, 0, 1, 2, 4]
