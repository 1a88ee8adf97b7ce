"""What goes wrong around our samplers in a study of the user's own: trials thrown away, interrupts, options that differ, plug-ins that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from hwc_onnx.errors import UsageError
from hwc_onnx.search import history as history_module
from hwc_onnx.search.agents import Agents
from hwc_onnx.search.history import History
from hwc_onnx.search.sampler import PlanObjective, StrategySampler
from hwc_onnx.search.space import Space
from hwc_onnx.search.storage import agree
from hwc_onnx.search.strategy import Proposal, check_sampler
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem
from tests.search.test_sampler import plans_of, problem


def best_after_throwing_away(monkeypatch: pytest.MonkeyPatch, careful: bool) -> list[bool]:
    """Whether the best trials of some studies saw every sample, where the user prunes plans after they were measured."""
    if not careful:
        monkeypatch.setattr(PlanObjective, "_returnable", lambda *_: True)
    found = []
    for seed in range(6):
        searched = SyntheticProblem(layers=6, images=1000, seed=seed)
        objective = PlanObjective(searched)

        def judged(trial: optuna.Trial, objective: PlanObjective = objective) -> float:
            value = objective(trial)
            if trial.params["a:t0"] == 4 or trial.params["w:l1"] >= 4:
                raise optuna.TrialPruned
            return value

        study = optuna.create_study(sampler=StrategySampler(searched, "thompson", trials=40, seed=seed))
        study.optimize(judged, n_trials=40)
        found.append(study.best_trial.user_attrs["outcome"]["complete"])
    return found


def test_the_best_trial_saw_every_sample_though_better_ones_were_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(best_after_throwing_away(monkeypatch, True))


def test_it_would_not_if_pruned_trials_ended_others_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin."""
    assert not all(best_after_throwing_away(monkeypatch, False))


@pytest.mark.parametrize("name", ["knapsack", "composite"])
def test_a_parameter_held_away_from_int8_leaves_the_others_to_be_searched(name: str) -> None:
    searched = problem()
    sampler = optuna.samplers.PartialFixedSampler({"w:l0": 2}, StrategySampler(searched, name, trials=12))
    study = optuna.create_study(sampler=sampler)
    study.optimize(PlanObjective(searched), n_trials=12)
    assert {trial.params["w:l0"] for trial in study.trials} == {2}
    # the sampler does not know of it: plans that differ there alone become one
    assert len({tuple(plan) for plan in plans_of(study)}) >= 6


def measured(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials if "outcome" in trial.user_attrs]


def test_interrupt_while_the_agents_learn_loses_no_lesson(monkeypatch: pytest.MonkeyPatch) -> None:
    def searching(interrupted: int) -> list[Any]:
        searched, calls = SyntheticProblem(layers=3, images=300), 0
        real = Agents.train

        def train(self: Agents, *args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == interrupted:
                raise KeyboardInterrupt
            return real(self, *args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Agents, "train", train)
            study = optuna.create_study(sampler=StrategySampler(searched, "positions", seed=1, trials=14))
            while (left := 14 - len(measured(study))) > 0:
                try:
                    study.optimize(PlanObjective(searched), n_trials=left)
                except KeyboardInterrupt:
                    assert calls == interrupted
        return measured(study)

    assert searching(5) == searching(0)


def test_a_problem_with_other_options_is_refused_with_the_one_that_differs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for metric in (None, "top5"):
        searched = problem()
        searched.options = {"metric": metric, "task": "auto"}  # type: ignore[attr-defined]
        study = optuna.create_study(study_name="own", storage=url, load_if_exists=True, sampler=StrategySampler(searched, "knapsack"))
        if metric is None:
            study.optimize(PlanObjective(searched), n_trials=2)
        else:
            with pytest.raises(UsageError, match=r"has options\.metric None, this run 'top5'; open the problem"):
                study.optimize(PlanObjective(searched), n_trials=2)


def test_an_option_that_an_older_version_did_not_have_is_no_difference() -> None:
    study = optuna.create_study()
    agree(study, {"options": {"metric": "top1"}}, "mend")
    agree(study, {"options": {"metric": "top1", "new": None}}, "mend")
    with pytest.raises(UsageError, match=r"options\.new None, this run 3; mend"):
        agree(study, {"options": {"metric": "top1", "new": 3}}, "mend")


def test_what_a_strategy_has_learned_is_kept_as_plain_numbers() -> None:
    searched = problem()
    study = optuna.create_study(sampler=StrategySampler(searched, f"{__name__}:learned", start="cold"))
    study.optimize(PlanObjective(searched), n_trials=3)
    kept = [trial.user_attrs["learning"] for trial in study.trials if trial.user_attrs.get("learning")]
    assert kept and all(found == {"loss": 0.5} for found in kept)


def learned(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(searched.start, "referee", {"loss": np.float32(0.5)}))  # type: ignore[dict-item]


def test_an_interrupt_between_two_trials_loses_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = problem()
    study = optuna.create_study(sampler=StrategySampler(searched, "knapsack"))
    study.optimize(PlanObjective(searched), n_trials=3)
    real = history_module.record_of

    def interrupted(trial: Any, space: Any) -> Any:
        if trial.number == 1:
            raise KeyboardInterrupt
        return real(trial, space)

    read = History(Space(searched.units), searched.limit_points)
    with monkeypatch.context() as patch:
        patch.setattr(history_module, "record_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read.sync(study)
    read.sync(study)
    assert [record.number for record in read.records] == [0, 1, 2]


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_a_seed_that_is_none_is_refused_at_once(seed: Any) -> None:
    with pytest.raises(UsageError, match=r"seed is .*; give an integer"):
        StrategySampler(problem(), seed=seed)


def test_a_strategy_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="the strategy is None; give its name"):
        StrategySampler(problem(), None)  # type: ignore[arg-type]


class Proposing:
    """A strategy of the user's own that proposes what it was made with."""

    def __init__(self, proposed: Any) -> None:
        self.proposed = proposed

    def propose(self, history: Any) -> Any:
        if isinstance(self.proposed, Exception):
            raise self.proposed
        return self.proposed


def making_nothing(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    raise KeyError("no such file")


def a_list(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing([0, 1])


def too_few(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(np.zeros(2, dtype=np.int64), "referee"))


def not_whole(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(np.zeros(len(searched.units)), "referee"))  # type: ignore[arg-type]


def out_of_range(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(np.full(len(searched.units), 99), "referee"))


def of_nobody(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(searched.start, "mine"))


def closing(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(searched.start, "closing"))


def ragged(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal([[0], [0, 1]], "referee"))  # type: ignore[arg-type]


def wordy(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(Proposal(searched.start, "referee", {"loss": "small"}))  # type: ignore[dict-item]


def ending(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    raise SystemExit(0)


def failing(searched: Any, seed: int, trials: int, folder: Any) -> Any:
    return Proposing(ZeroDivisionError("by zero"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("making_nothing", "making the strategy ends in KeyError"),
        ("a_list", "propose returned list; return a"),
        ("too_few", r"choices of shape \(2,\); give \d+ integers"),
        ("not_whole", "proposed float64 choices"),
        ("out_of_range", r"proposed option 99 of unit w:l0; give 0 to \d+"),
        ("of_nobody", "of origin 'mine'; give one of rollout"),
        ("closing", "of origin 'closing'; give one of rollout"),
        ("ragged", "cannot be read .*; give .* integers, and numbers by name"),
        ("wordy", "cannot be read .*'small'.*; give .* integers, and numbers by name"),
        ("ending", "making the strategy ends in SystemExit"),
        ("failing", "propose ends in ZeroDivisionError: by zero; mend"),
    ],
)
def test_a_strategy_of_the_user_s_own_is_told_its_mistake(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"--sampler {__name__}:{name}: .*{message}"):
        run_search(problem(), sampler=f"{__name__}:{name}", trials=12)


@pytest.mark.parametrize(("text", "message"), [("raise SystemExit(0)", "SystemExit"), ("def __getattr__(name):\n    1 / 0\n", "asking for it ends in ZeroDivisionError")])
def test_a_module_that_ends_the_program_is_refused(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_the_program.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "ends_the_program", raising=False)
    with pytest.raises(UsageError, match=message):
        check_sampler("ends_the_program:Mine")
