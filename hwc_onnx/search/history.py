"""The trials of a study, read back as records; the study is the only memory a strategy has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.problem import Choices, Outcome, Problem
from hwc_onnx.search.space import Space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Origin = Literal["seed", "rollout", "policy", "local_search", "referee", "closing"]

CLOSING = "closing"
"""Origin of trials whose plan was refitted layer after layer (see closing.py)."""
DROP = "drop"
"""Name of the constraint drop + one standard error - limit, in points."""


@dataclass(frozen=True)
class Record:
    """One finished trial. `counted` is False for a repeat of a plan that the study had already measured."""

    number: int
    choices: Choices
    outcome: Outcome
    origin: str
    counted: bool
    elapsed: float


class History:
    """Finished trials in order. `sync` appends what the study gained since."""

    def __init__(self, space: Space, limit_points: float) -> None:
        self.space = space
        self.limit_points = limit_points
        self.records: list[Record] = []
        self._seen: set[int] = set()
        self._by_plan: dict[bytes, Record] = {}
        self._best: Record | None = None

    def sync(self, study: Study) -> None:
        """Append trials that finished since the last call, in order of their numbers."""
        from optuna.trial import TrialState

        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)):
            if trial.number in self._seen or "outcome" not in trial.user_attrs:
                continue
            self.append(record_of(trial, self.space))
            self._seen.add(trial.number)

    def append(self, record: Record) -> None:
        """Add one record."""
        self.records.append(record)
        self._by_plan.setdefault(record.choices.tobytes(), record)
        if record.outcome.accepted(self.limit_points):
            if self._best is None or record.outcome.energy < self._best.outcome.energy:
                self._best = record

    def __len__(self) -> int:
        return len(self.records)

    @property
    def best(self) -> Record | None:
        """The accepted record of least energy, or None."""
        return self._best

    @property
    def evaluations(self) -> int:
        """Trials that count."""
        return sum(record.counted for record in self.records)

    @property
    def image_forwards(self) -> int:
        """Images that trials ran through the network."""
        return sum(record.outcome.image_forwards for record in self.records if record.counted)

    def find(self, choices: Choices) -> Record | None:
        """The record that first measured these canonical choices, or None."""
        return self._by_plan.get(choices.tobytes())

    def searched(self) -> History:
        """The trials of the search proper: refitted plans say nothing about plans that are not."""
        if not any(record.origin == CLOSING for record in self.records):
            return self
        result = History(self.space, self.limit_points)
        for record in self.records:
            if record.origin != CLOSING:
                result.append(record)
        return result

    def closing(self) -> list[Record]:
        """The refitted plans since the last trial of the search proper."""
        start = len(self.records)
        while start and self.records[start - 1].origin == CLOSING:
            start -= 1
        return self.records[start:]

    def measured(self) -> list[Record]:
        """Records with figures to learn from: counted and not failed."""
        return [record for record in self.records if record.counted and record.outcome.failure is None]

    def gained(self) -> dict[str, float]:
        """What of the saving (a share of the INT8 baseline's energy) the plans of each origin brought, by improvements."""
        found: dict[str, float] = {}
        best = 1.0
        for record in self.records:
            energy = record.outcome.energy
            if record.outcome.accepted(self.limit_points):
                found[record.origin] = found.get(record.origin, 0.0) + max(best - energy, 0.0)
                best = min(best, energy)
        return found

    def curve(self) -> list[tuple[int, float]]:
        """(evaluations, least accepted energy) at each improvement."""
        points: list[tuple[int, float]] = []
        evaluations, best = 0, np.inf
        for record in self.records:
            evaluations += record.counted
            if record.outcome.accepted(self.limit_points) and record.outcome.energy < best:
                best = record.outcome.energy
                points.append((evaluations, best))
        return points


def recall(problem: Problem, records: Sequence[Record]) -> None:
    """Let `problem` know the exact energies that it knew when these records were all there was.

    Refitted plans are left out: their energies are not those of the same choices without refitting.
    """
    known = [record for record in records if record.origin != CLOSING]
    problem.recall([record.choices for record in known], [record.outcome.energy for record in known])


def plans_of(records: Sequence[Record], units: int) -> NDArray[np.int64]:
    """Choices stacked into [records, units], also when there are none."""
    return np.array([record.choices for record in records], dtype=np.int64).reshape(len(records), units)


def record_of(trial: FrozenTrial, space: Space) -> Record:
    """A finished trial as a record."""
    attributes = trial.user_attrs
    known = {field.name for field in fields(Outcome)}
    values: dict[str, Any] = {name: value for name, value in attributes["outcome"].items() if name in known}
    values["contrasts"] = tuple(values.get("contrasts", ()))
    outcome = Outcome(**values)
    return Record(
        trial.number,
        space.choices_of(trial.params),
        outcome,
        str(attributes.get("origin", "referee")),
        bool(attributes.get("counted", True)),
        float(attributes.get("elapsed", 0.0)),
    )


def outcome_payload(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain JSON values."""
    payload = asdict(outcome)
    payload["limits"] = {name: float(value) for name, value in outcome.limits.items()}
    payload["figures"] = {name: float(value) for name, value in outcome.figures.items()}
    return {name: _plain(value) for name, value in payload.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
