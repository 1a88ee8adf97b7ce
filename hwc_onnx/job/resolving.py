"""Another limit for a finished search: its trials are judged anew, none is run.

What a trial measured on the search samples does not depend on the limits, except that trials far from the limits of their
own run were stopped early and say nothing sure about others. What those could have been stays unknown, and their number is
told. The holdout is opened once more for each new limit; the earlier run's folder keeps count, since each opening may err.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwc_onnx.errors import UsageError
from hwc_onnx.events import Note
from hwc_onnx.files import write_atomic
from hwc_onnx.result import sha256
from hwc_onnx.runfolder import owner_must_be_gone, read_record
from hwc_onnx.search.budget import Spent
from hwc_onnx.search.goal import Goal
from hwc_onnx.search.guard import Guard
from hwc_onnx.search.history import CLOSING, History, Record, recall
from hwc_onnx.search.space import Space
from hwc_onnx.search.storage import STUDY_NAME, open_storage
from hwc_onnx.search.study import SearchResult

if TYPE_CHECKING:
    from optuna.study import Study

    from hwc_onnx.job.running import Running
    from hwc_onnx.search.objective import Objective

FREE = frozenset(
    {"objective", "max_drop", "max_energy", "max_latency", "max_bytes", "max_memory", "gate", "polish", "trials", "timeout", "jobs"}
    | {"sampler", "seed", "policy", "from_run"}
)
"""Options that may differ from those of the earlier run: limits, and what only a search needs."""
OPENINGS = "holdout_openings.txt"
"""In the earlier run's folder: a line for each time that its holdout was opened for another limit."""


@dataclass(frozen=True)
class Earlier:
    """The folder of a finished search."""

    path: Path

    @property
    def journal(self) -> Path:
        """Its study."""
        return self.path / "study.journal"

    def digest(self) -> str:
        """What its trials are known by (UsageError where there are none)."""
        try:
            return sha256(self.journal.read_bytes())
        except OSError as error:
            raise UsageError(
                f"--from-run {self.path}: no study.journal can be read there ({error.strerror}); name the run folder of a search"
            ) from error

    def check(self, config: dict[str, Any]) -> None:
        """Refuse a run of another model, other data or other freedoms, naming the first difference, and one that is under
        way (UsageError).
        """
        owner_must_be_gone(self.path)
        try:
            old = read_record(self.path)
        except UsageError as error:
            raise UsageError(f"--from-run {error}; name the folder of a search") from error
        if "from_run" in old:
            raise UsageError(f"--from-run {self.path}: is not the folder of a search; name the folder that has the trials")
        for name in sorted((set(old) | set(config)) - FREE):
            if old.get(name) != config.get(name):
                option = "" if name.endswith("sha256") else f" with --{name.replace('_', '-')}"
                raise UsageError(
                    f"--from-run {self.path}: its trials are of other inputs: {name} was {old.get(name)!r}, now "
                    f"{config.get(name)!r}; repeat the old value{option}, or search anew"
                )

    def open_holdout(self, what: str) -> int:
        """Count one more opening of the holdout; how many there were, this one included."""
        file = self.path / OPENINGS
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        write_atomic(file, "".join(f"{line}\n" for line in [*lines, what]).encode(), "--run-dir")
        return len(lines) + 1 + (self.path / "result.json").is_file()


def resolve(run: Running, objective: Objective, earlier: Earlier) -> SearchResult:
    """The trials of an earlier run under the limits of this one; nothing is measured.

    Raises:
        UsageError: there is no finished trial, or the trials are of another space.
    """
    path = run.folder.path / "study.journal"
    if not path.exists():
        shutil.copyfile(earlier.journal, path)
    study = _study(path)
    space = Space(objective.units)
    history = History(space, run.limit_points)
    history.sync(study)
    known = {trial.number: trial.distributions for trial in study.get_trials(deepcopy=False)}
    if not history.records or any(known[record.number] != space.distributions() for record in history.records):
        raise UsageError(
            f"--from-run {earlier.path}: its trials are none, or of another version's choices; search anew (--fresh without --from-run)"
        )
    recall(objective, history.records)
    goal = Goal(run.limit_points, run.options.energy_target)
    judged = History(space, run.limit_points)
    for record in _judged(run, objective, history):
        judged.append(record)
    found = SearchResult(
        judged,
        Spent(0, objective.setup_forwards, objective.setup_forwards / objective.search_size),
        0.0,
        "resolved",
        str(study.user_attrs.get("sampler", "")),
        int(study.user_attrs.get("seed", 0)),
        goal,
    )
    run.tell(Note(_said(judged, found.best, goal), warning=found.best is None))
    return found


def _study(path: Path) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(path)
    if not any(summary.study_name == STUDY_NAME for summary in optuna.get_all_study_summaries(storage)):
        raise UsageError(f"{path}: holds no study; name the run folder of a search with --from-run")
    return optuna.load_study(study_name=STUDY_NAME, storage=storage)


def _judged(run: Running, objective: Objective, history: History) -> list[Record]:
    """Records with the excesses of this run's limits, and luck taken off as far as all trials can tell it."""
    limits = run.search_limits
    before = [record.outcome for record in history.searched().measured()]
    guarded = any(outcome.contrasts for outcome in before) and math.isfinite(run.limit_points)
    guard = Guard(before, run.limit_points) if guarded else None
    found = []
    for record in history.records:
        outcome = record.outcome
        if outcome.failure is None and outcome.complete:
            figures = outcome.figures
            if any(name not in figures for name in limits.given()):
                figures = objective.figures(record.choices, refitted=record.origin == CLOSING and objective.refits)
            points = guard.accepted_drop(outcome) if guard is not None else outcome.guarded_points
            outcome = replace(outcome, figures=figures, limits=limits.excesses(figures), guarded_points=points)
        found.append(replace(record, outcome=outcome))
    return found


def _said(history: History, best: Record | None, goal: Goal) -> str:
    """How many trials there were, and of how many nothing can be said under these limits."""
    measured = history.measured()
    stopped = [record for record in measured if not record.outcome.complete]
    text = f"0 new evaluations: {len(measured)} earlier ones are judged by these limits"
    if not stopped:
        return text
    text += f"; {len(stopped)} of them were stopped early and cannot be judged"
    if best is None:
        return text
    if goal.energy_target is None:
        might = sum(record.outcome.energy < best.outcome.energy for record in stopped)
        return f"{text}, {might} of those would cost less energy than the best of the others"
    might = sum(record.outcome.energy <= goal.energy_target for record in stopped)
    return f"{text}, {might} of those keep the energy target"
