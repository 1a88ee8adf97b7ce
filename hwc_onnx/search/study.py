"""The search loop: propose, measure, record, until the budget is spent.

The Optuna study is the record. Our own strategies propose from it and write each finished trial in one go; Optuna's
samplers run by ask and tell. Killing the process loses at most the trial that was running: the next call with the same
storage fails what is left over and goes on with the same draws.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwc_onnx.errors import SearchError, UsageError
from hwc_onnx.events import Listener, Note, Phase, TrialDone
from hwc_onnx.search import storage as storage_module
from hwc_onnx.search.budget import PATIENCE, Budget, Spent
from hwc_onnx.search.closing import closing_plan, reserved, reserved_images
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.goal import Goal
from hwc_onnx.search.history import CLOSING, History, Record, recall
from hwc_onnx.search.measuring import Measuring
from hwc_onnx.search.policy import SCRATCH
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.referees import optuna_sampler
from hwc_onnx.search.seeds import STARTS, Start, derived, first_plans, seed_plan
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import LEARNING, SOLVING, check_policy, make
from hwc_onnx.search.surrogate import DamageTable
from hwc_onnx.search.target import MovingLimit

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

FAILURES = 10
"""Failed candidates in a row that end the search with an error."""


@dataclass(frozen=True)
class SearchResult:
    """A finished or stopped search. `stopped_by` is "trials", "timeout", "converged" or "interrupted"."""

    history: History
    spent: Spent
    seconds: float
    stopped_by: str
    sampler: str
    seed: int
    goal: Goal

    @property
    def best(self) -> Record | None:
        """The best accepted record; None when not even the baseline was accepted."""
        return self.goal.best(self.history.records)


def run_search(
    problem: Problem,
    *,
    sampler: str = "composite",
    trials: int = 200,
    image_forwards: int | None = None,
    seed: int = 0,
    storage_path: str | Path | None = None,
    timeout: float | None = None,
    on_event: Listener | None = None,
    on_incumbent: Callable[[Record], int] | None = None,
    resume: bool | None = None,
    space: Literal["menu", "raw"] = "menu",
    warm_start: bool = True,
    start: Start = "seeds",
    patience: int | None = None,
    guard: bool = True,
    policy: str | Path | None = None,
    energy_target: float | None = None,
) -> SearchResult:
    """Search `problem` and keep the record at `storage_path` (None: in memory).

    Args:
        problem: what to search.
        sampler: a name of `strategy.SAMPLERS`, or `module:attribute` of a factory like those.
        trials: evaluations in all, earlier ones of a resumed study included.
        image_forwards: images through the network in all, preparation included; an evaluation that might not fit is not
            begun, and the closing plans get their share. None: as many as the evaluations take.
        seed: everything drawn derives from it and from the number of finished trials.
        storage_path: journal file; the folder may also hold agent checkpoints.
        timeout: seconds for this call; a candidate under way is finished first, and the closing plans still follow.
        on_event: told about every trial.
        on_incumbent: called with each new best record, and once with the best of a resumed study, so that the
            caller's best-so-far file is never behind the record.
        resume: True demands that the study exists.
        space: parameters of Optuna's samplers; our own strategies always use the menu.
        warm_start: begin with plans that are not the strategy's own (they count).
        start: which: "seeds", or "cold" for the INT8 baseline alone.
        patience: evaluations without improvement that end the search (see `budget.stalled`); 0 never ends it, None is
            `budget.PATIENCE` for the composite strategy and 0 for all others. A resumed study may have another.
        guard: accept plans on their drop with luck on the search samples taken off (guard.py).
        policy: file of the networks that the composite strategy's agents start with, or "pretrained" for the shipped ones
            (policy.py); None or "none" starts from scratch. A resumed study must have the same.
        energy_target: look for the least drop at this share of the INT8 baseline's energy instead of for the least energy
            (target.py); `problem.limit_points`, if finite, limits the drop all the same. Such a search does not stop before its
            budget is spent for want of improvement.

    Raises:
        UsageError: unknown sampler or start, negative patience, an energy target that is not above zero, no limit at all, or a study of something else in the storage.
        SearchError: too many candidates failed in a row.
    """
    began = time.monotonic()
    if patience is None:
        patience = PATIENCE if sampler == "composite" else 0
    if patience < 0:
        raise UsageError(f"search: patience is {patience}; give a number of evaluations, or 0 for never")
    if start not in STARTS:
        raise UsageError(f"search: start is '{start}'; choose from {', '.join(STARTS)}")
    if energy_target is not None and not energy_target > 0.0:
        raise UsageError(f"search: the energy target is {energy_target}; give a share of the INT8 baseline's energy, such as 0.4")
    if energy_target is None and not math.isfinite(problem.limit_points):
        raise UsageError("search: neither the drop nor the energy has a limit; give a finite drop limit, or an energy target")
    goal = Goal(problem.limit_points, energy_target)
    start_policy = check_policy(sampler, policy)
    path = None if storage_path is None else Path(storage_path)
    folder = None if path is None or energy_target is not None else path.parent
    strategy = make(sampler, problem, seed, trials, folder, start_policy) if problem.units else None
    parameters = Space(problem.units, "menu" if strategy is not None else space)
    study = storage_module.open_study(
        storage_module.open_storage(path),
        {
            "sampler": sampler,
            "seed": seed,
            "space": parameters.kind,
            "warm_start": warm_start,
            "start": start,
            "guard": guard,
            **({"policy": SCRATCH if start_policy is None else start_policy.digest} if sampler in LEARNING else {}),
            "limit_points": problem.limit_points if math.isfinite(problem.limit_points) else None,
            "energy_target": energy_target,
            "digests": dict(problem.digests),
        },
        resume,
    )
    storage_module.fail_unfinished(study)
    loop = _Loop(problem, study, parameters, goal, began, trials, guard, on_event, on_incumbent)
    loop.history.sync(study)
    recall(problem, loop.history.records)
    loop.resumed()
    if not problem.units:
        return loop.baseline_alone(sampler, seed)
    table = DamageTable(problem)
    decoder = Decoder(problem, parameters)
    solved = sampler in SOLVING
    kept_back = reserved(trials) if problem.refits or (energy_target is None and solved) else 0
    closed = sum(record.origin == CLOSING for record in loop.history.records)
    images = None if image_forwards is None else image_forwards - problem.setup_forwards - problem.search_size
    budget = Budget(
        trials - kept_back - closed,
        timeout,
        patience if energy_target is None else 0,
        None if images is None else images - reserved_images(kept_back, problem, images),
        getattr(problem, "judging", None),
    )
    moving = None
    if energy_target is not None:
        moving = MovingLimit(problem, parameters, decoder, table, goal, trials - kept_back, first_plans(start) if warm_start else 0)
    try:
        while (stopped_by := budget.stopped_by(searched := loop.history.searched())) is None:
            if moving is not None:
                searched, moved = moving.renew(loop.history)
                loop.view = searched
                strategy = make(sampler, problem, seed, trials, None) if moved else strategy
            first = seed_plan(problem, parameters, decoder, table, searched, start) if warm_start else None
            if strategy is None:
                if not loop.ask_and_tell(sampler, seed, first):
                    stopped_by = "converged"
                    break
                continue
            if first is not None:
                loop.record_in_one_go(first, "seed")
                continue
            proposal = strategy.propose(searched)
            if proposal is None:
                stopped_by = "converged"
                break
            loop.record_in_one_go(proposal.choices, proposal.origin, proposal.learning, entire=proposal.entire)
        if moving is not None:
            loop.view, _ = moving.renew(loop.history)
        while len(loop.history.closing()) < kept_back and (images is None or loop.history.image_forwards + problem.refit_forwards <= images):
            plan = (
                closing_plan(problem, parameters, decoder, table, loop.history, seed, solved)
                if energy_target is None
                else goal.to_refit(loop.history)
            )
            if plan is None:
                break
            if on_event is not None and problem.refits and not loop.history.closing():
                on_event(Phase("refit", f"up to {kept_back} last plans, their layers fitted one after the other"))
            loop.record_in_one_go(plan, CLOSING)
    except KeyboardInterrupt:
        stopped_by = "interrupted"
        if on_event is not None:
            on_event(Note("interrupted: what was found so far is judged and written; once more stops at once", warning=True))
        storage_module.fail_unfinished(study)
        loop.history.sync(study)
    finally:
        problem.limit_points = goal.limit_points
    spent = Spent.of(loop.history, problem.setup_forwards, problem.search_size)
    return SearchResult(loop.history, spent, loop.elapsed(), stopped_by, sampler, seed, goal)


class _Loop:
    """The parts of one trial: measure once, write, tell the caller."""

    def __init__(
        self,
        problem: Problem,
        study: Study,
        space: Space,
        goal: Goal,
        began: float,
        trials: int,
        guard: bool,
        on_event: Listener | None,
        on_incumbent: Callable[[Record], int] | None,
    ) -> None:
        self.problem = problem
        self.study = study
        self.space = space
        self.history = History(space, problem.limit_points)
        self.view: History | None = None
        self._goal = goal
        self._distributions = space.distributions()
        self._began = began
        self._before = 0.0
        self._best: Record | None = None
        self._trials = trials
        self._measuring = Measuring(problem, goal, guard)
        self._on_event = on_event
        self._on_incumbent = on_incumbent

    def resumed(self) -> None:
        """Take up the clock of an earlier call and repeat its incumbent to the caller."""
        if self.history.records:
            self._before = max(record.elapsed for record in self.history.records)
        self._best = self._goal.best(self.history.records)
        if self._best is not None and self._on_incumbent is not None:
            self._on_incumbent(self._best)

    def baseline_alone(self, sampler: str, seed: int) -> SearchResult:
        """All there is where nothing may be chosen."""
        if not self.history.records:
            self.record_in_one_go(self.problem.start, "seed")
        spent = Spent.of(self.history, self.problem.setup_forwards, self.problem.search_size)
        return SearchResult(self.history, spent, self.elapsed(), "converged", sampler, seed, self._goal)

    def elapsed(self) -> float:
        """Seconds since the search began, earlier calls included."""
        return self._before + time.monotonic() - self._began

    def record_in_one_go(
        self, choices: Choices, origin: str, learning: Mapping[str, float] | None = None, entire: bool = False
    ) -> None:
        """Measure, on all samples if `entire` and it may keep the limit, then write the finished trial with a single append."""
        from optuna.trial import TrialState, create_trial

        outcome, counted = self._measuring.measure(self.history, choices, view=self.view, refit=origin == CLOSING, entire=entire)
        failed = outcome.failure is not None
        trial = create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            value=None if failed else self._goal.value(outcome),
            params=self.space.params_of(choices),
            distributions=self._distributions,
            user_attrs={
                **self._measuring.attributes(choices, outcome, origin, counted, self.elapsed()),
                **({"learning": dict(learning)} if learning else {}),
            },
            constraints=None if failed else dict(self._goal.constraints(outcome)),
        )
        self.study.add_trial(trial)
        self._finish()

    def ask_and_tell(self, sampler: str, seed: int, first: Choices | None) -> bool:
        """One trial of an Optuna sampler; a seed is enqueued, so that the sampler knows it as its own. False where the sampler says that
        it has nothing left.
        """
        from optuna.trial import TrialState

        self.study.sampler = optuna_sampler(sampler, derived(seed, sampler, len(self.history)))
        if first is not None:
            self.study.enqueue_trial(self.space.params_of(first))
        trial: Trial = self.study.ask(self._distributions)
        choices = self.space.choices_of(trial.params)
        outcome, counted = self._measuring.measure(self.history, choices, view=self.view)
        origin = "seed" if first is not None else "referee"
        for name, value in self._measuring.attributes(choices, outcome, origin, counted, self.elapsed()).items():
            trial.set_user_attr(name, value)
        if outcome.failure is None:
            for name, value in self._goal.constraints(outcome).items():
                trial.set_constraint(name, value)
        left = True
        try:
            if outcome.failure is None:
                self.study.tell(trial, self._goal.value(outcome))
            else:
                self.study.tell(trial, state=TrialState.FAIL)
        except RuntimeError as error:  # what Study.stop raises outside of Study.optimize; the trial is stored all the same
            if "Study.stop" not in str(error):
                raise
            left = False
        self._finish()
        return left

    def _finish(self) -> None:
        self.history.sync(self.study)
        last, best = self.history.records[-1], self._goal.best(self.history.records)
        improved = best is not None and best is not self._best
        self._best = best
        written = 0
        if improved and best is not None and self._on_incumbent is not None:
            written = self._on_incumbent(best)
        if self._on_event is not None:
            self._on_event(
                TrialDone(
                    evaluations=self.history.evaluations,
                    budget=self._trials,
                    energy=last.outcome.energy,
                    drop_points=last.outcome.drop_points,
                    improved=improved,
                    best_energy=best.outcome.energy if best is not None else float("inf"),
                    seconds=self.elapsed(),
                    origin=last.origin,
                    file_bytes=written,
                )
            )
        recent = self.history.records[-FAILURES:]
        if len(recent) == FAILURES and all(record.outcome.failure is not None for record in recent):
            raise SearchError(
                f"search: the last {FAILURES} candidates all failed, the last with: {last.outcome.failure}; nothing was lost:"
                " once the cause is mended, the same command goes on"
            )
