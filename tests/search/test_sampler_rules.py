"""What a study with our samplers refuses or survives: other problems, other trials, other samplers, plans that measure no number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from hwc_onnx.errors import UsageError
from hwc_onnx.search.sampler import PlanObjective, StrategySampler
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import check_sampler
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem
from tests.search.test_sampler import TRIALS, plans_of, problem


def test_study_of_another_problem_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="own", storage=url, sampler=StrategySampler(problem(), "knapsack", trials=8))
    study.optimize(PlanObjective(problem()), n_trials=3)
    looser, wider = problem(), SyntheticProblem(layers=5, images=400)
    looser.limit_points = 3.0
    for other, named in ((looser, "limit_points 1.0, this run 3.0"), (wider, "digests")):
        for sampler in (StrategySampler(other, "knapsack", trials=8), optuna.samplers.RandomSampler(seed=0)):
            again = optuna.load_study(study_name="own", storage=url, sampler=sampler)
            with pytest.raises(UsageError, match=f"{named}.*another name"):
                again.optimize(PlanObjective(other), n_trials=1)
    assert len([trial for trial in study.trials if trial.state.name == "COMPLETE"]) == 3


def test_one_sampler_serves_one_study_after_the_other() -> None:
    searched = problem()
    sampler, found = StrategySampler(searched, "composite", seed=1, trials=TRIALS), []
    for _ in range(2):
        study = optuna.create_study(sampler=sampler)
        study.optimize(PlanObjective(searched), n_trials=10)
        found.append(plans_of(study))
    assert found[0] == found[1]


def test_trials_that_are_pruned_are_lessons_and_those_without_measurements_are_refused() -> None:
    searched = problem()
    objective = PlanObjective(searched)

    def pruned(trial: optuna.Trial) -> float:
        objective(trial)
        raise optuna.TrialPruned

    study = optuna.create_study(sampler=StrategySampler(searched, "knapsack", trials=10))
    study.optimize(pruned, n_trials=6)
    assert len({tuple(plan) for plan in plans_of(study)}) == 6
    study = optuna.create_study(sampler=StrategySampler(searched, "knapsack", trials=10))
    parameters = Space(searched.units).distributions()
    study.tell(study.ask(parameters), 0.5)
    with pytest.raises(UsageError, match="trial 0 has no measurements"):
        study.ask(parameters)


def test_a_second_trial_waits_for_the_first() -> None:
    searched = problem()
    study = optuna.create_study(sampler=StrategySampler(searched, "knapsack", trials=10))
    parameters = Space(searched.units).distributions()
    first = study.ask(parameters)
    with pytest.raises(UsageError, match=r"trial 0 is not finished.*n_jobs=1"):
        study.ask(parameters)
    study.tell(first, PlanObjective(searched)(first))
    assert study.ask(parameters).params != first.params


def test_enqueued_and_fixed_parameters_are_the_user_s_own() -> None:
    searched = problem()
    plan = Space(searched.units).params_of(Space(searched.units).random(np.random.default_rng(0)))
    study = optuna.create_study(sampler=StrategySampler(searched, "composite", trials=TRIALS))
    study.enqueue_trial(plan)
    study.optimize(PlanObjective(searched), n_trials=4)
    assert [trial.user_attrs["origin"] for trial in study.trials] == ["referee", "seed", "seed", "seed"]
    assert study.trials[1].params == Space(searched.units).params_of(searched.start)
    name = next(iter(plan))
    fixed = optuna.samplers.PartialFixedSampler({name: 0}, StrategySampler(searched, "knapsack", trials=8))
    study = optuna.create_study(sampler=fixed)
    study.optimize(PlanObjective(searched), n_trials=4)
    assert {trial.params[name] for trial in study.trials} == {0}


class NotNumbers(SyntheticProblem):
    def evaluate(self, choices: np.ndarray, energy_limit: float = np.inf):
        outcome = super().evaluate(choices, energy_limit)
        return replace(outcome, damage=float("nan"), drop_points=float("nan")) if self.evaluations == 4 else outcome


@pytest.mark.parametrize("name", ["composite", "positions", "knapsack", "tpe"])
def test_a_plan_that_measures_no_number_fails_and_the_search_goes_on(name: str) -> None:
    found = run_search(NotNumbers(layers=4, images=400), sampler=name, trials=12)
    failed = [record for record in found.history.records if record.outcome.failure is not None]
    assert len(failed) == 1 and "finite" in str(failed[0].outcome.failure)
    assert found.best is not None and len(found.history) >= 12


def test_sampler_that_has_tried_everything_ends_the_search() -> None:
    tiny = SyntheticProblem(layers=1, images=400)
    found = run_search(tiny, sampler="optuna.samplers:BruteForceSampler", trials=2000, warm_start=False)
    assert found.stopped_by == "converged" and len(found.history) < 2000


class Forwarding(optuna.samplers.RandomSampler):
    def __init__(self, **more: int) -> None:
        super().__init__(**more)


def test_sampler_class_that_hands_its_arguments_on_gets_the_seed() -> None:
    found = [run_search(problem(), sampler=f"{__name__}:Forwarding", trials=9) for _ in range(2)]
    plans = [[record.choices.tolist() for record in one.history.records] for one in found]
    assert plans[0] == plans[1]


INSTANCE = optuna.samplers.RandomSampler(seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("optuna.samplers:BaseSampler", "cannot be made"),
        ("optuna.samplers:GridSampler", "cannot be made"),
        ("hwc_onnx:StrategySampler", "cannot be made"),
        ("math:pi", "neither a class of Optuna samplers nor"),
        ("builtins:dict", "neither a class of Optuna samplers nor"),
        (f"{__name__}:INSTANCE", "neither a class of Optuna samplers nor"),
        ("./samplers.py:Mine", "is no module:attribute"),
        (":Mine", "is no module:attribute"),
        ("optuna.samplers:", "is no module:attribute"),
        ("antigravity_of_nobody:Mine", "no module"),
        ("tests.search.broken_module:Mine", "importing 'tests.search.broken_module' ends in ZeroDivisionError"),
    ],
)
def test_object_that_is_no_sampler_is_refused_by_its_name(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_sampler(name)


def test_sampler_refuses_a_problem_that_has_nothing_to_search() -> None:
    endless = problem()
    endless.limit_points = float("inf")
    with pytest.raises(UsageError, match="no drop limit; give"):
        StrategySampler(endless)
    with pytest.raises(UsageError, match="neither the drop nor the energy has a limit"):
        run_search(endless, sampler="positions", trials=4)
    with pytest.raises(UsageError, match="sampler of Optuna"):
        StrategySampler(problem(), "optuna.samplers:TPESampler")
