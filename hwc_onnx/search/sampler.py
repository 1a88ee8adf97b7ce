"""Our strategies in a study of one's own: `study.optimize(PlanObjective(problem))` with `StrategySampler(problem)` as Optuna's sampler.

`run_search` writes a trial in one go and ends with refitted plans; here the study, its storage and its loop are the caller's. The trials
are the same as those of `run_search` with the same seed and budget, up to its closing ones.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from hwc_onnx.errors import RuntimeFailure, UsageError
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.goal import Goal
from hwc_onnx.search.history import History, Record, recall
from hwc_onnx.search.measuring import Measuring
from hwc_onnx.search.problem import Problem
from hwc_onnx.search.referees import is_optuna
from hwc_onnx.search.seeds import STARTS, Start, derived, seed_plan
from hwc_onnx.search.space import Space
from hwc_onnx.search.storage import agree
from hwc_onnx.search.strategy import Proposal, check_policy, make
from hwc_onnx.search.surrogate import DamageTable

REOPEN = "open the problem with the same model, data and options as before, or give the study another name"
"""What to do where a stored study is of another problem."""


class StrategySampler(BaseSampler):
    """A strategy of ours as a sampler of Optuna, for studies whose objective is a `PlanObjective` of the same problem.

    Whatever it knows it reads from the finished trials, so a new sampler continues a stored study. It proposes one plan after the
    other: a trial must be finished before the next is asked for (`study.optimize(n_jobs=1)`).

    Args:
        problem: what is searched (`hwc_onnx.open_problem`).
        strategy: "composite", or another name of `hwc-onnx compress --sampler` that is not Optuna's own.
        seed: everything drawn derives from it and from the number of finished trials.
        trials: how many are planned; exploration is scheduled over them.
        start: begin with the first plans of `compress` ("seeds"), or with INT8 alone ("cold").
        policy: as `hwc-onnx compress --policy`, for "composite".

    Raises:
        UsageError: no strategy of ours, no known start, a policy that is refused, or a problem without units or a finite drop limit.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: str = "composite",
        *,
        seed: int = 0,
        trials: int = 200,
        start: Start = "seeds",
        policy: str | Path | None = None,
    ) -> None:
        if not isinstance(strategy, str):
            raise UsageError(f"StrategySampler: the strategy is {strategy!r}; give its name, such as 'composite'")
        if is_optuna(strategy):
            raise UsageError(f"StrategySampler: '{strategy}' is a sampler of Optuna; give it to the study as it is")
        if start not in STARTS:
            raise UsageError(f"StrategySampler: start is '{start}'; choose from {', '.join(STARTS)}")
        if not problem.units:
            raise UsageError("StrategySampler: the problem has no units to choose for; give it layers that may be compressed")
        if not math.isfinite(problem.limit_points):
            raise UsageError("StrategySampler: the problem has no drop limit; give it a finite one")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UsageError(f"StrategySampler: seed is {seed!r}; give an integer from 0 on")
        self._problem, self._seed, self._start, self._trials = problem, seed, start, trials
        self._space = Space(problem.units)
        self._distributions = self._space.distributions()
        self._name, self._policy = strategy, check_policy(strategy, policy)
        self._table, self._decoder = DamageTable(problem), Decoder(problem, self._space)
        self._asking = threading.Lock()
        self._begin(None)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """One integer for each unit of the problem."""
        return dict(self._distributions)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """The next plan; where the strategy knows none that is new, a random one.

        Raises:
            UsageError: a study that maximises or has several objectives, is of another problem, has a trial of this sampler under way, or
                one that a `PlanObjective` did not measure.
        """
        with self._asking:
            if self._study is not study:
                check_study(study, self._problem)
                self._begin(study)
            self._check_trials(study, trial.number)
            try:
                self._history.sync(study)
                recall(self._problem, self._history.records)
                proposal = self._proposed()
            except BaseException:  # interrupted while it learned: the trials teach it all again
                self._begin(study)
                raise
            self._proposals[trial.number] = proposal
        return {name: value for name, value in self._space.params_of(proposal.choices).items() if name in search_space}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Nothing is sampled by itself (UsageError)."""
        raise UsageError(
            f"StrategySampler: '{param_name}' is no parameter of this problem; give the study a PlanObjective of the same problem alone"
        )

    def proposal(self, number: int) -> Proposal | None:
        """What was proposed for a trial, None where another process did."""
        return self._proposals.get(number)

    def _begin(self, study: Study | None) -> None:
        """Nothing is known of a study yet."""
        self._study = study
        self._history = History(self._space, self._problem.limit_points)
        self._strategy = make(self._name, self._problem, self._seed, self._trials, None, self._policy)
        self._proposals: dict[int, Proposal] = {}
        self._started = False

    def _check_trials(self, study: Study, number: int) -> None:
        for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)):
            if other.state == TrialState.RUNNING and other.number != number and other.number in self._proposals:
                raise UsageError(
                    f"StrategySampler: trial {other.number} is not finished, and what it measures decides the next plan; tell it first, and give"
                    " study.optimize n_jobs=1"
                )
            if other.state != TrialState.RUNNING and "outcome" not in other.user_attrs:
                raise UsageError(
                    f"StrategySampler: trial {other.number} has no measurements to learn from; give study.optimize a PlanObjective, or call that with"
                    " each trial that you ask for"
                )

    def _proposed(self) -> Proposal:
        history, start = self._history, self._space.canonical(self._problem.start)
        if not self._started and history.find(start) is None and len(history):
            # trials that the user enqueued came before the INT8 baseline; where parameters are held fixed, it never comes
            self._started = True
            return Proposal(start, "seed")
        first = seed_plan(self._problem, self._space, self._decoder, self._table, history, self._start)
        if first is not None:
            return Proposal(first, "seed")
        assert self._strategy is not None  # names of Optuna were refused
        proposal = self._strategy.propose(history)
        if proposal is None:
            return Proposal(self._space.random(derived(self._seed, "exhausted", len(history))), "referee")
        return proposal


class PlanObjective:
    """What a study of `problem` minimises: the energy of a trial's plan as a share of the INT8 baseline's, with the limits as constraints.

    Works with any sampler of Optuna. The trial keeps the plan and all that was measured as user attributes, which is what
    `StrategySampler` learns from. Candidates that cannot be run raise `RuntimeFailure`: pass `catch=(RuntimeFailure,)` to go on. A study
    that does not minimise one value, or that is of another problem, is refused (`UsageError`).
    """

    def __init__(self, problem: Problem, guard: bool = True) -> None:
        self._space = Space(problem.units)
        self._distributions = self._space.distributions()
        self._problem, self._limit = problem, problem.limit_points
        self._measuring = Measuring(problem, Goal(problem.limit_points), guard)
        self._known: tuple[Study, History] | None = None

    def __call__(self, trial: Trial) -> float:
        """Measure the plan of a trial (RuntimeFailure where it cannot be run)."""
        params: Mapping[str, int] = {
            name: trial.suggest_int(name, distribution.low, distribution.high)  # type: ignore[attr-defined]
            for name, distribution in self._distributions.items()
        }
        choices = self._space.choices_of(params)
        history = self._history_of(trial.study)
        sampler = _strategy_sampler(trial.study.sampler)
        proposal = None if sampler is None else sampler.proposal(trial.number)
        if proposal is not None and not np.array_equal(proposal.choices, choices):
            proposal = None  # some of the trial's parameters were given by the user
        # stopping early is for plans that a better one beats; Optuna never returns a trial that the user pruned or failed
        entire = (proposal is not None and proposal.entire) or not self._returnable(trial.study, history.best)
        outcome, counted = self._measuring.measure(history, choices, entire=entire)
        origin = "referee" if proposal is None else proposal.origin
        elapsed = max((record.elapsed for record in history.records), default=0.0) + outcome.seconds
        for name, value in self._measuring.attributes(choices, outcome, origin, counted, elapsed).items():
            trial.set_user_attr(name, value)
        if proposal is not None and proposal.learning:
            trial.set_user_attr("learning", dict(proposal.learning))
        if outcome.failure is not None:
            raise RuntimeFailure(f"trial {trial.number}: {outcome.failure}; give study.optimize catch=(RuntimeFailure,) to go on without it")
        for name, value in self._measuring.goal.constraints(outcome).items():
            trial.set_constraint(name, value)
        return self._measuring.goal.value(outcome)

    def _returnable(self, study: Study, best: Record | None) -> bool:
        if best is None:
            return True
        return study.get_trials(deepcopy=False)[best.number].state == TrialState.COMPLETE

    def _history_of(self, study: Study) -> History:
        if self._known is None or self._known[0] is not study:
            check_study(study, self._problem, guard=self._measuring.guard)
            self._known = study, History(self._space, self._limit)
        self._known[1].sync(study)
        return self._known[1]


def _strategy_sampler(sampler: BaseSampler) -> StrategySampler | None:
    """The sampler itself, or the one inside a sampler of Optuna's that wraps another."""
    for found in (sampler, *vars(sampler).values()):
        if isinstance(found, StrategySampler):
            return found
    return None


def check_study(study: Study, problem: Problem, **more: Any) -> None:
    """Refuse a study that cannot be one of `problem`; a new one takes down what it is of.

    Raises:
        UsageError: it maximises, has several objectives, or its trials are of another model, accelerator, space, data or limit.
    """
    if [direction.name for direction in study.directions] != ["MINIMIZE"]:
        raise UsageError('study: it must minimise one value; make it with optuna.create_study(direction="minimize")')
    identity = {
        "digests": dict(problem.digests),
        "limit_points": problem.limit_points,
        "search_samples": problem.search_size,
        "calibration": problem.plan_of(problem.start).calibration.digest,
        "options": dict(getattr(problem, "options", {})),
        **more,
    }
    agree(study, identity, REOPEN)
