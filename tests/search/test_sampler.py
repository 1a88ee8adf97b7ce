"""Our strategies in a study of one's own: the same trials as `run_search`, resumable, and clear about what they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest

import hwc_onnx
from hwc_onnx.errors import RuntimeFailure, UsageError
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.search.history import History
from hwc_onnx.search.sampler import PlanObjective, StrategySampler
from hwc_onnx.search.space import Space
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem

TRIALS = 18


def problem() -> SyntheticProblem:
    return SyntheticProblem(layers=4, images=400)


def plans_of(study: optuna.Study) -> list[list[int]]:
    history = History(Space(problem().units), 1.0)
    history.sync(study)
    return [record.choices.tolist() for record in history.records]


@pytest.mark.parametrize("name", ["composite", "positions", "knapsack", "evolution"])
@pytest.mark.parametrize("start", ["seeds", "cold"])
def test_own_study_has_the_trials_of_run_search(name: str, start: str) -> None:
    found = run_search(problem(), sampler=name, trials=TRIALS, seed=3, start=start)  # type: ignore[arg-type]
    expected = [record for record in found.history.records if record.origin != "closing"]
    searched = problem()
    study = optuna.create_study(sampler=StrategySampler(searched, name, seed=3, trials=TRIALS, start=start))  # type: ignore[arg-type]
    study.optimize(PlanObjective(searched), n_trials=len(expected))
    assert plans_of(study) == [record.choices.tolist() for record in expected]
    assert [trial.user_attrs["origin"] for trial in study.trials] == [record.origin for record in expected]
    assert study.best_value == min(r.outcome.energy for r in expected if r.outcome.accepted(1.0))


def test_own_study_with_another_seed_has_other_trials() -> None:
    """Broken twin of the equality above."""
    found = run_search(problem(), sampler="knapsack", trials=TRIALS, seed=3)
    searched = problem()
    study = optuna.create_study(sampler=StrategySampler(searched, "knapsack", seed=4, trials=TRIALS))
    study.optimize(PlanObjective(searched), n_trials=TRIALS)
    assert plans_of(study) != [record.choices.tolist() for record in found.history.records][:TRIALS]


def test_own_study_goes_on_from_its_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for number, trials in enumerate((9, 7)):
        searched = problem()
        sampler = StrategySampler(searched, "composite", seed=1, trials=TRIALS)
        study = optuna.create_study(study_name="own", storage=url, sampler=sampler, load_if_exists=number > 0)
        study.optimize(PlanObjective(searched), n_trials=trials)
    searched = problem()
    whole = optuna.create_study(sampler=StrategySampler(searched, "composite", seed=1, trials=TRIALS))
    whole.optimize(PlanObjective(searched), n_trials=16)
    assert plans_of(study) == plans_of(whole)


def test_objective_serves_any_sampler_and_keeps_the_limit_as_a_constraint() -> None:
    searched = problem()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4))
    study.enqueue_trial(Space(searched.units).params_of(searched.start))
    study.optimize(PlanObjective(searched), n_trials=12)
    accepted = [trial.value for trial in study.trials if all(value <= 0.0 for value in trial.constraints.values())]
    assert 1 <= len(accepted) < 12 and study.best_value == min(accepted)
    CompressionPlan.model_validate(study.best_trial.user_attrs["plan"])
    assert {trial.user_attrs["origin"] for trial in study.trials} == {"referee"}


def test_run_search_takes_a_sampler_class_of_optuna_by_its_name() -> None:
    found = [run_search(problem(), sampler="optuna.samplers:NSGAIIISampler", trials=12, seed=seed) for seed in (0, 0, 1)]
    plans = [[record.choices.tolist() for record in one.history.records] for one in found]
    assert plans[0] == plans[1] != plans[2]
    assert all(record.origin in ("seed", "referee") for record in found[0].history.records)


class Failing(SyntheticProblem):
    def evaluate(self, choices: np.ndarray, energy_limit: float = np.inf):
        if self.evaluations == 3:
            self.evaluations += 1
            raise RuntimeFailure("ran out of memory")
        return super().evaluate(choices, energy_limit)


def test_objective_of_a_candidate_that_fails_names_it_and_the_study_can_go_on() -> None:
    failing = Failing(layers=4, images=400)
    study = optuna.create_study(sampler=StrategySampler(failing, "knapsack", trials=10))
    with pytest.raises(RuntimeFailure, match=r"trial 3: ran out of memory; give study.optimize catch="):
        study.optimize(PlanObjective(failing), n_trials=10)
    study.optimize(PlanObjective(failing), n_trials=6, catch=(RuntimeFailure,))
    assert [trial.state.name for trial in study.trials].count("FAIL") == 1
    assert len(plans_of(study)) == 10


def test_sampler_refuses_what_it_is_not() -> None:
    with pytest.raises(UsageError, match="sampler of Optuna"):
        StrategySampler(problem(), "tpe")
    with pytest.raises(UsageError, match="choose from seeds, cold"):
        StrategySampler(problem(), start="warm")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'composite'"):
        StrategySampler(problem(), "compositte")
    study = optuna.create_study(direction="maximize", sampler=StrategySampler(problem()))
    with pytest.raises(UsageError, match='direction="minimize"'):
        study.optimize(PlanObjective(problem()), n_trials=1)
    study = optuna.create_study(sampler=StrategySampler(problem()))
    with pytest.raises(UsageError, match="'depth' is no parameter"):
        study.optimize(lambda trial: trial.suggest_float("depth", 0.0, 1.0), n_trials=1)


def test_front_door_has_both() -> None:
    assert hwc_onnx.StrategySampler is StrategySampler and hwc_onnx.PlanObjective is PlanObjective
