"""What makes one plan better than another: least energy within a drop limit, or least drop within an energy target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwc_onnx.search.gate import Judging
from hwc_onnx.search.history import DROP, History, Record
from hwc_onnx.search.ladder import Ladder
from hwc_onnx.search.problem import Choices, Outcome

ENERGY = "energy"
"""Name of the constraint energy / target - 1."""


@dataclass(frozen=True)
class Goal:
    """`limit_points` is the largest allowed drop (infinite: any). With an `energy_target`, a share of the INT8 baseline's
    energy, the best plan is that of least drop (plus a standard error, luck taken off) among those that keep the target;
    without, that of least energy.
    """

    limit_points: float
    energy_target: float | None = None

    def value(self, outcome: Outcome) -> float:
        """What is minimised: energy as a share of the INT8 baseline's, or points."""
        return outcome.energy if self.energy_target is None else outcome.excess(0.0)

    def accepts(self, outcome: Outcome) -> bool:
        """Whether a plan may be the best."""
        kept = self.energy_target is None or outcome.energy <= self.energy_target
        return kept and outcome.accepted(self.limit_points)

    def best(self, records: Sequence[Record]) -> Record | None:
        """The best record, the first of equals; None where none is accepted."""
        accepted = [record for record in records if self.accepts(record.outcome)]
        return min(accepted, key=lambda record: self.value(record.outcome), default=None)

    def nearest(self, records: Sequence[Record]) -> Record | None:
        """Of the plans that keep the drop limit, the one whose worst other excess is least; None where none keeps it."""
        kept = [
            record
            for record in records
            if record.counted
            and record.outcome.complete
            and record.outcome.failure is None
            and record.outcome.excess(self.limit_points) <= 0.0
        ]
        return min(kept, key=lambda record: max(self.others(record.outcome).values(), default=0.0), default=None)

    def others(self, outcome: Outcome) -> dict[str, float]:
        """Shares by which limits other than the drop's are exceeded."""
        target = {} if self.energy_target is None else {ENERGY: outcome.energy / self.energy_target - 1.0}
        return {**target, **outcome.limits}

    def constraints(self, outcome: Outcome) -> Mapping[str, float]:
        """What Optuna's samplers learn feasibility from: at or below zero is respected."""
        found = {name: float(value) for name, value in self.others(outcome).items()}
        if math.isfinite(self.limit_points):
            excess = outcome.excess(self.limit_points)
            found[DROP] = float(excess) if np.isfinite(excess) else 1e9
        return found

    def finalists(self, history: History, count: int, without: Choices, judging: Judging | None) -> list[Record]:
        """What the holdout judges, in the order of the test: a front from the safest plan on, or the one of least drop.

        Where no plan was accepted, the front is of those that come nearest to the other limits, from the safest on. Were several plans compared by
        their drops on the holdout, the least of these would be too good to be true.
        """
        best = self.best(history.records)
        if self.energy_target is not None:
            found = best or self.nearest(history.records)
            return [] if found is None or (best is None and np.array_equal(found.choices, without)) else [found]
        front = history if best is not None else self._by_excess(history, without)
        measured = {record.number: record for record in history.records}
        return [measured[record.number] for record in Ladder.of(front, without, judging).climbed(count)]

    def _by_excess(self, history: History, start: Choices) -> History:
        """The record as if energy were the largest share by which a plan exceeds another limit than the drop's, relative to that of `start`, and
        below that the energy saved: who cannot keep the others is to come near. The same record where `start` keeps them.
        """
        first = history.find(start)
        most = 0.0 if first is None else max(first.outcome.limits.values(), default=0.0)
        if most <= 0.0:
            return history
        found = History(history.space, history.limit_points)
        for record in history.records:
            excess = max(record.outcome.limits.values(), default=0.0)
            value = excess / most if excess > 0.0 else record.outcome.energy - 1.0
            found.append(replace(record, outcome=replace(record.outcome, energy=value, limits={})))
        return found

    def to_refit(self, history: History) -> Choices | None:
        """Of the plans that keep the energy target, the one of least damage that was not refitted yet."""
        done = {record.choices.tobytes() for record in history.closing()}
        kept = [record for record in history.searched().measured() if self.accepts(record.outcome)]
        kept.sort(key=lambda record: record.outcome.damage)
        return next((record.choices for record in kept if record.choices.tobytes() not in done), None)
