"""The loop: reproducibility, repeats, failures, constraints in Optuna's own record, timeout and Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from hwc_onnx.errors import RuntimeFailure, SearchError, UsageError
from hwc_onnx.events import TrialDone
from hwc_onnx.search.budget import REPEATS
from hwc_onnx.search.history import DROP, Record
from hwc_onnx.search.problem import Choices, Option, Outcome, Unit
from hwc_onnx.search.space import Space
from hwc_onnx.search.storage import STUDY_NAME, open_storage
from hwc_onnx.search.study import FAILURES, SearchResult, run_search
from tests.search.synthetic import SyntheticProblem

SMALL = SyntheticProblem(layers=3, images=400)
REFEREES = ("tpe", "random", "nsga2")


def plans(found: SearchResult) -> list[list[int]]:
    return [record.choices.tolist() for record in found.history.records]


def stored(path: Path) -> optuna.Study:
    return optuna.load_study(study_name=STUDY_NAME, storage=open_storage(path))


@pytest.mark.parametrize("sampler", REFEREES)
def test_search_same_seed_same_trials_other_seed_other_trials(sampler: str) -> None:
    first = run_search(SMALL, sampler=sampler, trials=16, seed=3)
    assert plans(run_search(SMALL, sampler=sampler, trials=16, seed=3)) == plans(first)
    assert plans(run_search(SMALL, sampler=sampler, trials=16, seed=4)) != plans(first)


@pytest.mark.parametrize("sampler", ["composite", *REFEREES])
def test_search_all_samplers_begin_with_the_same_seeds_at_the_baseline(sampler: str) -> None:
    found = run_search(SMALL, sampler=sampler, trials=6, seed=5)
    assert plans(found) == plans(run_search(SMALL, sampler="random", trials=6, seed=0))
    assert np.array_equal(found.history.records[0].choices, SMALL.start)
    assert {record.origin for record in found.history.records} == {"seed"}


@pytest.mark.parametrize("sampler", ["composite", "knapsack", "tpe"])
def test_search_cold_start_measures_the_baseline_alone_before_the_strategy(sampler: str) -> None:
    found = run_search(SMALL, sampler=sampler, trials=8, seed=5, start="cold")
    assert np.array_equal(found.history.records[0].choices, SMALL.start)
    assert [record.origin == "seed" for record in found.history.records] == [True] + [False] * 7
    assert plans(found) != plans(run_search(SMALL, sampler=sampler, trials=8, seed=5))


def test_search_unknown_start_is_refused() -> None:
    with pytest.raises(UsageError, match="'warm'; choose from seeds, cold"):
        run_search(SMALL, trials=2, start="warm")


def test_search_keeps_to_its_images_and_the_closing_gets_its_share() -> None:
    limit = SMALL.setup_forwards + 16 * SMALL.search_size
    free = run_search(SMALL, sampler="spdy", trials=20, start="cold")
    bound = run_search(SMALL, sampler="spdy", trials=20, start="cold", image_forwards=limit)
    assert free.spent.image_forwards > limit >= bound.spent.image_forwards
    assert limit - bound.spent.image_forwards < SMALL.search_size
    assert [record.origin for record in bound.history.records[-2:]] == ["closing"] * 2
    assert bound.stopped_by == "trials"


def test_search_raw_space_with_cold_start_runs_and_reads_back(tmp_path: Path) -> None:
    options = {"sampler": "tpe", "trials": 12, "space": "raw", "start": "cold", "storage_path": tmp_path / "j"}
    found = run_search(SMALL, **options)
    assert [record.origin for record in found.history.records] == ["seed"] + ["referee"] * 11
    assert plans(run_search(SMALL, **options)) == plans(found)
    assert any(name.endswith("|algorithm") for name in stored(tmp_path / "j").trials[0].params)


@pytest.mark.parametrize("sampler", ["composite", "tpe"])
def test_search_optuna_itself_finds_the_same_best_trial_and_the_constraints(sampler: str, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    found = run_search(SMALL, sampler=sampler, trials=20, storage_path=path)
    study = stored(path)
    assert found.best is not None
    assert study.best_trial.number == found.best.number
    assert study.best_value == pytest.approx(found.best.outcome.energy)
    refused = [r for r in found.history.records if not r.outcome.accepted(SMALL.limit_points)]
    assert min(r.outcome.energy for r in refused) < study.best_value
    for trial, record in zip(study.trials, found.history.records, strict=True):
        assert trial.constraints[DROP] == pytest.approx(record.outcome.excess(SMALL.limit_points))
        assert trial.user_attrs["plan"]["layers"].keys() == SMALL.plan_of(record.choices).layers.keys()


class Limited(SyntheticProblem):
    """With a further limit, which the cheapest half of all plans breaks."""

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        found = super().evaluate(choices, energy_limit)
        return replace(found, limits={"bytes": 0.6 - found.energy})


@pytest.mark.parametrize("sampler", ["knapsack", "nsga2"])
def test_search_further_limits_bind_in_our_record_and_in_optunas(sampler: str, tmp_path: Path) -> None:
    problem = Limited(layers=3, images=400)
    found = run_search(problem, sampler=sampler, trials=16, storage_path=tmp_path / "j")
    assert found.best is not None and found.best.outcome.energy >= 0.6
    assert stored(tmp_path / "j").best_trial.number == found.best.number
    assert any(r.outcome.excess(1.0) <= 0 and r.outcome.energy < 0.6 for r in found.history.records)


class Few(SyntheticProblem):
    """A problem of four plans: one unit of the layer kind."""

    def __init__(self) -> None:
        super().__init__(layers=3, images=400)
        options = tuple(Option(bits=bits) for bits in (8, 6, 5, 4))
        kept = [u for u, unit in enumerate(self.units) if unit.name == "l0"]
        self.whole = SyntheticProblem(layers=3, images=400)
        self.units = (Unit("layer", "l0", options, ("l0",)),)
        self.damage = (np.array([0.0, 0.01, 0.02, 0.04]),)
        self.start = np.zeros(1, dtype=np.int64)
        self.factors = ()
        self.space = Space(self.units)
        self.evaluations = 0
        assert kept == [0]

    def wide(self, choices: Choices) -> Choices:
        result = self.whole.start.copy()
        result[0] = (0, 2, 3, 4)[int(choices[0])]
        return result

    def energy(self, choices: Choices) -> float:
        return self.whole.energy(self.wide(choices)) if hasattr(self, "whole") else super().energy(choices)

    def plan_of(self, choices: Choices):
        return self.whole.plan_of(self.wide(choices))

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        self.evaluations += 1
        return self.whole.evaluate(self.wide(choices), energy_limit)


def test_search_repeats_cost_nothing_are_stored_and_end_after_fifty_in_a_row() -> None:
    problem = Few()
    found = run_search(problem, sampler="random", trials=9)
    assert found.stopped_by == "converged"
    distinct = {record.choices.tobytes() for record in found.history.records}
    assert problem.evaluations == found.spent.evaluations == len(distinct) <= 4
    counted = [record.counted for record in found.history.records]
    assert not any(counted[-REPEATS:]) and counted[-REPEATS - 1]
    for record in found.history.records:
        first = found.history.find(record.choices)
        assert first is not None and record.outcome == first.outcome


def test_search_own_strategy_ends_converged_when_every_plan_was_measured() -> None:
    problem = Few()
    found = run_search(problem, sampler="knapsack", trials=9)
    assert (found.stopped_by, found.spent.evaluations, problem.evaluations) == ("converged", 4, 4)


class Failing(SyntheticProblem):
    """Candidates for which `fails` holds cannot be measured."""

    fails = staticmethod(lambda number: number % 3 == 2)

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        number, self.evaluations = self.evaluations, self.evaluations + 1
        if self.fails(number):
            raise RuntimeFailure(f"session {number} did not open")
        return super().evaluate(choices, energy_limit)


@pytest.mark.parametrize("sampler", ["composite", *REFEREES])
def test_search_failed_candidates_count_are_kept_and_never_win(sampler: str, tmp_path: Path) -> None:
    problem = Failing(layers=3, images=400)
    found = run_search(problem, sampler=sampler, trials=15, storage_path=tmp_path / "study.journal")
    failed = [r for r in found.history.records if r.outcome.failure is not None and r.counted]
    assert 14 <= found.spent.evaluations <= 15 and failed
    assert all("did not open" in str(record.outcome.failure) for record in failed)
    assert found.best is not None and found.best.outcome.failure is None
    states = [trial.state.name for trial in stored(tmp_path / "study.journal").trials]
    assert states.count("FAIL") >= len(failed) and "RUNNING" not in states
    again = run_search(problem, sampler=sampler, trials=15, storage_path=tmp_path / "study.journal")
    assert [(r.outcome.failure, r.counted) for r in again.history.records] == [
        (r.outcome.failure, r.counted) for r in found.history.records
    ]


class AllFailing(Failing):
    fails = staticmethod(lambda number: number >= 2)


@pytest.mark.parametrize("sampler", ["knapsack", "random"])
def test_search_many_failures_in_a_row_stop_with_the_reason(sampler: str) -> None:
    problem = AllFailing(layers=3, images=400)
    with pytest.raises(SearchError, match=r"last 10 candidates all failed.*did not open"):
        run_search(problem, sampler=sampler, trials=30)
    assert problem.evaluations == 2 + FAILURES


class Interrupted(SyntheticProblem):
    """Ctrl-C arrives while the candidate of this number is measured."""

    at = 9

    def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
        if self.evaluations == self.at:
            raise KeyboardInterrupt
        found = super().evaluate(choices, energy_limit)
        return found


@pytest.mark.parametrize("sampler", ["knapsack", "tpe"])
def test_search_ctrl_c_keeps_what_was_finished_and_leaves_nothing_running(sampler: str, tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    found = run_search(Interrupted(layers=3, images=400), sampler=sampler, trials=20, storage_path=path)
    assert found.stopped_by == "interrupted"
    assert found.spent.evaluations == len(found.history) == 9
    assert found.best is not None
    assert not stored(path).get_trials(states=[optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING])


def test_search_timeout_of_zero_measures_nothing_and_says_so() -> None:
    problem = SyntheticProblem(layers=3, images=400)
    found = run_search(problem, sampler="random", trials=20, timeout=0.0)
    assert (found.stopped_by, found.spent.evaluations, found.best, problem.evaluations) == ("timeout", 0, None, 0)


def test_search_stops_early_candidates_whose_energy_is_hopeless_and_charges_what_they_used() -> None:
    limits: list[tuple[float, float]] = []

    class Watched(SyntheticProblem):
        def evaluate(self, choices: Choices, energy_limit: float = np.inf) -> Outcome:
            outcome = super().evaluate(choices, energy_limit)
            limits.append((energy_limit, outcome.energy))
            return outcome

    found = run_search(Watched(layers=4, images=600), sampler="random", trials=30)
    records = [record for record in found.history.records if record.counted]
    best = np.inf
    for record, (limit, energy) in zip(records, limits, strict=True):
        assert limit == (np.inf if record.origin == "closing" else best)
        assert record.outcome.complete == (energy < limit)
        assert record.outcome.image_forwards == (600 if record.outcome.complete else 256)
        if record.outcome.accepted(1.0):
            best = min(best, energy)
    stopped = sum(not record.outcome.complete for record in records)
    assert 0 < stopped < len(records)
    assert found.history.image_forwards == 600 * len(records) - 344 * stopped
    assert found.spent.image_forwards == found.history.image_forwards + 1200


def test_search_tells_every_trial_and_every_new_best(tmp_path: Path) -> None:
    events: list[TrialDone] = []
    written: list[Record] = []

    def write(record: Record) -> int:
        written.append(record)
        return 1234

    options: Mapping[str, object] = {"sampler": "knapsack", "trials": 12, "storage_path": tmp_path / "j"}
    found = run_search(SMALL, **options, on_event=events.append, on_incumbent=write)  # type: ignore[arg-type]
    assert [event.evaluations for event in events] == list(range(1, len(found.history) + 1))
    assert [record.outcome.energy for record in written] == [energy for _, energy in found.history.curve()]
    assert [event.file_bytes for event in events if event.improved] == [1234] * len(written)
    assert {event.file_bytes for event in events if not event.improved} <= {0}
    count = len(written)
    run_search(SMALL, **options, on_incumbent=write)  # type: ignore[arg-type]
    assert [record.number for record in written[count:]] == [found.best.number]  # type: ignore[union-attr]


def test_search_unknown_sampler_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"compposite.*composite"):
        run_search(SMALL, sampler="compposite", trials=5)
