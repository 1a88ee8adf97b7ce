"""Bookkeeping: what counts, what is spent, which plan is best, when the search has converged."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.errors import UsageError
from hwc_onnx.search.budget import IMPROVEMENT, PATIENCE, REPEATS, Budget, Spent, stalled
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Outcome
from hwc_onnx.search.space import Space
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem

PROBLEM = SyntheticProblem(layers=3, images=400)
SPACE = Space(PROBLEM.units)


def outcome(energy: float, drop: float = 0.5, **changes) -> Outcome:
    return Outcome(energy, drop, 0.1, 0.01, **({"image_forwards": 400, "n_samples": 400} | changes))


def history(energies: list[float | Outcome], seeds: int = 0, repeats: tuple[int, ...] = ()) -> History:
    """A record of these energies, all accepted; `repeats` are positions that measured nothing new."""
    found = History(SPACE, PROBLEM.limit_points)
    rng = np.random.default_rng(0)
    for number, value in enumerate(energies):
        measured = value if isinstance(value, Outcome) else outcome(value)
        origin = "seed" if number < seeds else "rollout"
        found.append(Record(number, SPACE.random(rng), measured, origin, number not in repeats, 0.0))
    return found


def test_stalled_counts_evaluations_after_the_last_seed_only() -> None:
    seeds = [1.0, 0.5, 0.5]
    assert not stalled(history(seeds + [0.5] * 4, seeds=3), 5)
    assert stalled(history(seeds + [0.5] * 5, seeds=3), 5)
    assert stalled(history(seeds + [0.5] * 5, seeds=0), 5)
    assert not stalled(history([0.5] * 5, seeds=0), 5)  # without seeds the first plan has nothing to improve on


@pytest.mark.parametrize(("gain", "expected"), [(1.1 * IMPROVEMENT, False), (0.9 * IMPROVEMENT, True)])
def test_stalled_needs_an_improvement_of_the_documented_share(gain: float, expected: bool) -> None:
    assert stalled(history([1.0, 0.5, *[0.5] * 3, 0.5 * (1 - gain), 0.6], seeds=2), 5) is expected


def test_stalled_adds_small_improvements_up() -> None:
    steps = [0.5 * (1 - 0.4 * IMPROVEMENT * (i + 1)) for i in range(5)]
    assert not stalled(history([0.5, *steps], seeds=1), 5)
    assert stalled(history([0.5, *steps, *[steps[-1]] * 3], seeds=1), 5)


def test_stalled_repeats_do_not_count_and_refused_plans_do_not_improve() -> None:
    assert not stalled(history([0.5, *[0.5] * 5], seeds=1, repeats=(3,)), 5)
    refused = outcome(0.1, drop=3.0)
    assert stalled(history([0.5, *[refused] * 5], seeds=1), 5)
    assert not stalled(history([0.5, *[outcome(0.1)] * 5], seeds=1), 5)


def test_stalled_goes_on_while_plans_get_safer_at_the_same_energy() -> None:
    """No plan is cheaper than the best accepted one, but the gate is more likely to let them pass."""
    same = [outcome(0.5), *[outcome(0.5)] * 5]
    safer = [outcome(0.5), *[Outcome(0.5, 0.4, 0.1, 0.01 * 0.8**n, n_samples=400, image_forwards=400) for n in range(1, 6)]]
    assert stalled(history(same, seeds=1), 5) and not stalled(history(safer, seeds=1), 5)


def test_stalled_never_without_an_accepted_plan() -> None:
    refused = outcome(0.5, drop=3.0)
    assert not stalled(history([refused] * 30, seeds=2), 5)
    assert not stalled(history([*[refused] * 6, outcome(0.9)], seeds=1), 5)


def test_stalled_equals_brute_force_on_random_records() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        energies = [float(value) for value in 0.5 - 0.001 * rng.geometric(0.4, size=rng.integers(1, 14)).cumsum()]
        rng.shuffle(energies)
        seeds, patience = int(rng.integers(0, 3)), int(rng.integers(1, 6))
        best = [min(energies[: i + 1]) for i in range(len(energies))]
        after = len(energies) - seeds
        expected = (
            after >= patience
            and len(energies) > patience
            and best[-1] > (1 - IMPROVEMENT) * best[len(energies) - patience - 1]
        )
        seen.add(expected)
        assert stalled(history(energies, seeds=min(seeds, len(energies))), patience) == expected
    assert seen == {True, False}


def test_budget_names_the_first_reason() -> None:
    full = history([0.5] * 4)
    assert Budget(4, None).stopped_by(full) == "trials"
    assert Budget(4, 0.0).stopped_by(full) == "trials"
    assert Budget(5, 0.0).stopped_by(full) == "timeout"
    assert Budget(5, None).stopped_by(full) is None
    assert Budget(5, None, patience=3).stopped_by(full) == "converged"
    assert Budget(5, None, patience=0).stopped_by(full) is None


def test_budget_fifty_repeats_in_a_row_end_the_search_and_cost_nothing() -> None:
    energies = [0.5] * (REPEATS + 1)
    repeats = tuple(range(1, REPEATS + 1))
    assert Budget(3, None).stopped_by(history(energies, repeats=repeats)) == "converged"
    assert Budget(3, None).stopped_by(history(energies[:-1], repeats=repeats)) is None
    assert history(energies, repeats=repeats).evaluations == 1


def test_spent_is_the_larger_of_evaluations_and_forwards_over_split_size() -> None:
    short = outcome(0.6, complete=False, image_forwards=256, n_samples=256)
    record = history([0.5, short, 0.5, short], repeats=(2,))
    spent = Spent.of(record, setup_forwards=1000, search_size=400)
    assert (spent.evaluations, spent.image_forwards) == (3, 1000 + 400 + 256 + 256)
    assert spent.equivalent == pytest.approx(1912 / 400)
    assert Spent.of(record, 0, 400).equivalent == 3.0


def test_history_best_must_be_complete_allowed_and_within_all_limits() -> None:
    energies = [
        outcome(0.9),
        outcome(0.1, complete=False),
        outcome(0.2, drop=0.95),
        outcome(0.3, limits={"bytes": 0.01}),
        outcome(0.4, failure="no"),
        outcome(0.5, limits={"bytes": 0.0}),
        outcome(0.6),
    ]
    found = history(energies)
    assert found.best is not None and found.best.number == 5
    assert found.curve() == [(1, 0.9), (6, 0.5)]
    assert [record.number for record in found.measured()] == [0, 1, 2, 3, 5, 6]


def test_search_stops_converged_for_the_composite_strategy_only_by_default() -> None:
    """A search ends early where the rule, applied to its record, says so and no sooner."""
    found = run_search(PROBLEM, sampler="random", trials=9, patience=2)
    assert found.stopped_by == "converged" and found.spent.evaluations < 9
    assert stalled(found.history, 2)
    earlier = History(SPACE, PROBLEM.limit_points)
    for record in found.history.records[:-1]:
        earlier.append(record)
        assert not stalled(earlier, 2)
    assert run_search(PROBLEM, sampler="random", trials=9 + PATIENCE).stopped_by == "trials"
    never = run_search(PROBLEM, sampler="random", trials=9, patience=0)
    assert never.stopped_by == "trials" and never.spent.evaluations == 9


def test_search_composite_default_patience_stops_a_hopeless_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwc_onnx.search.composite.Composite.propose", random_proposal)
    found = run_search(PROBLEM, trials=6 + 4 * PATIENCE)
    assert found.stopped_by == "converged"
    assert run_search(PROBLEM, trials=6 + 2 * PATIENCE, patience=0).stopped_by == "trials"


def random_proposal(self, history: History):
    from hwc_onnx.search.strategy import Proposal

    rng = np.random.default_rng(len(history))
    return Proposal(SPACE.canonical(SPACE.sizes - 1 - rng.integers(0, 2, len(SPACE.sizes))), "rollout")


def test_search_refuses_a_negative_patience() -> None:
    with pytest.raises(UsageError, match="patience is -1"):
        run_search(PROBLEM, patience=-1)
