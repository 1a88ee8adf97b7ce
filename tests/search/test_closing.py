from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.search.closing import reserved
from hwc_onnx.search.history import CLOSING
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem


class Refitting(SyntheticProblem):
    refits = True

    def __init__(self, share: float = 0.4) -> None:
        super().__init__(layers=4, images=3000, seed=3)
        self.refitted_share = share


def searched(problem: SyntheticProblem, trials: int = 40, **options):
    return run_search(problem, sampler="knapsack", trials=trials, seed=1, **options)


def closing_of(found):
    return [record for record in found.history.records if record.origin == CLOSING]


@pytest.fixture(scope="module")
def refitted():
    problem = Refitting()
    return problem, searched(problem)


def test_closing_stays_within_the_budget(refitted):
    _, found = refitted
    assert found.spent.evaluations <= 40 and 3 <= len(closing_of(found)) <= reserved(40) == 4


def test_closing_finds_less_energy_because_refitted_plans_may_be_more_aggressive(refitted):
    _, found = refitted
    plain = found.history.searched().best
    assert found.history.best.origin == CLOSING and found.history.best.outcome.energy < plain.outcome.energy


def test_closing_plain_plans_as_aggressive_would_break_the_limit(refitted):
    """Broken twin: the same plan without refitting is refused."""
    problem, found = refitted
    assert not problem.evaluate(found.history.best.choices).accepted(problem.limit_points)


def test_closing_gives_the_gate_safer_plans_than_the_best(refitted):
    problem, found = refitted
    front = found.history.front(without=problem.start)
    assert front[-1] is found.history.best
    assert front[0].outcome.drop_points < 0.5 * found.history.best.outcome.drop_points
    assert not any(np.array_equal(record.choices, problem.start) for record in front)


def test_closing_learns_how_much_refitting_helps():
    """Where it hardly helps, steps after the first are milder than where it helps a lot."""
    energies = []
    for share in (0.9, 0.2):
        energies.append(closing_of(searched(Refitting(share)))[1].outcome.energy)
    assert energies[0] > energies[1]


def test_closing_without_refitting_measures_plain_plans():
    problem = SyntheticProblem(layers=6, images=600, seed=3)
    found = searched(problem)
    assert all(problem.evaluate(record.choices) == record.outcome for record in closing_of(found))


def test_closing_is_not_repeated_by_a_finished_study(tmp_path):
    path = tmp_path / "study.journal"
    problem = Refitting()
    first = searched(problem, 30, storage_path=path)
    assert len(searched(problem, 30, storage_path=path).history) == len(first.history)


def test_closing_of_a_larger_budget_goes_on_as_if_unrefitted(tmp_path):
    path = tmp_path / "study.journal"
    problem = Refitting()
    searched(problem, 20, storage_path=path)
    longer = searched(problem, 40, storage_path=path)
    plain = [record for record in longer.history.records if record.origin != CLOSING]
    straight = [record for record in searched(problem, 40).history.records if record.origin != CLOSING]
    count = min(len(plain), len(straight))
    assert all(np.array_equal(a.choices, b.choices) for a, b in zip(plain[:count], straight[:count], strict=True))


def test_closing_leaves_a_tiny_budget_alone():
    assert [reserved(n) for n in (1, 9, 10, 25, 200)] == [0, 0, 1, 2, 6]
