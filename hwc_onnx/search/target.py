"""Least drop within an energy target, by searches for least energy under a drop limit that is moved.

Every strategy looks for least energy within `Problem.limit_points`. The limit wanted is the least at which the energy
target is met. It is not known, so it is forecast from the trials so far: the solver decodes plans at different drops,
and the drop whose plan costs just the target is taken. Strategies beat the solver's plans by something; how much their
best plan under the limit before did is multiplied in. Other limits than the drop's are met at some energy too; where
that is below the target, it is aimed at instead. The limit is forecast anew for each of the first plans and a few times
later; the trials so far are then the seeds of a strategy made anew. All of it follows from the record, so a study that
goes on has the limits that an uninterrupted one has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.goal import Goal
from hwc_onnx.search.history import History, Record, recall
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Problem
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable

RENEWED = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Shares of the budget after which the limit is forecast anew (assumed)."""
LEAST, MOST = 0.02, 100.0
"""Points between which the limit is looked for."""
HALVINGS = 11
POWER_WEIGHT, POWERS = 0.05, (0.3, 3.0)
"""A resource is in proportion to energy until plans say otherwise, and between these powers of it (assumed)."""


class MovingLimit:
    """The drop limit for each next trial.

    Args:
        problem: what is searched; its `limit_points` is set here.
        space: of the problem's units.
        decoder: of the problem.
        table: its damages.
        goal: with an energy target.
        trials: evaluations in all.
        first: plans that a study begins with.
    """

    def __init__(
        self, problem: Problem, space: Space, decoder: Decoder, table: DamageTable, goal: Goal, trials: int, first: int
    ) -> None:
        assert goal.energy_target is not None
        self._problem, self._space, self._decoder, self._table = problem, space, decoder, table
        self._target, self._cap = goal.energy_target, goal.limit_points
        later = {round(share * trials) for share in RENEWED}
        self._starts = [*range(min(first, trials) + 1), *sorted(start for start in later if start > first)]
        self._limits: list[float] = []

    def renew(self, history: History) -> tuple[History, bool]:
        """Set the problem's limit for the next trial.

        Returns:
            The trials under it, earlier ones as seeds, and whether the limit is another than for the trial before.
        """
        records = history.searched().records
        turn = sum(start <= len(records) for start in self._starts) - 1
        moved = turn >= len(self._limits)
        while len(self._limits) <= turn:
            self._limits.append(self._forecast(records[: self._starts[len(self._limits)]]))
        self._problem.limit_points = self._limits[turn]
        recall(self._problem, records)
        view = History(self._space, self._limits[turn])
        for number, record in enumerate(records):
            view.append(replace(record, origin="seed") if number < self._starts[turn] else record)
        return view, moved

    def _forecast(self, records: Sequence[Record]) -> float:
        """The least limit at which the target is expected to be met, in points; never above the goal's own."""
        scale = self._limits[-1] if self._limits else min(self._cap, 1.0)
        self._problem.limit_points = scale
        recall(self._problem, records)
        history = History(self._space, scale)
        for record in records:
            history.append(record)
        model = Model(self._problem, self._table, history, derived(0, "target", len(records)))
        starts = middle_starts(self._space, self._problem)

        def energy(drop: float) -> float:
            return self._problem.energy(model.decode(self._decoder, drop, starts).choices)

        beaten = 1.0
        if history.best is not None and len(self._limits) and len(records) > 1:
            beaten = min(history.best.outcome.energy / energy(model.accepted_drop()), 1.0)
        low, high, aim = math.log(LEAST), math.log(MOST), min(self._target, within_limits(records))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if beaten * energy(math.exp(middle)) <= aim:
                high = middle
            else:
                low = middle
        error = scale - model.accepted_drop()
        return float(np.clip(math.exp(high) + error, LEAST, min(self._cap, MOST)))


def within_limits(records: Sequence[Record]) -> float:
    """The energy at which plans are expected to keep all limits beside the drop's, infinite where nothing says so.

    What a plan takes of a limited resource is fitted by a power of its energy, over plans that save any.
    """
    measured = [record.outcome for record in records if record.outcome.failure is None and record.outcome.energy < 1.0]
    found = math.inf
    for name in measured[0].limits if measured else ():
        energy = np.log([outcome.energy for outcome in measured])
        taken = np.log([max(1.0 + outcome.limits[name], 1e-9) for outcome in measured])
        moved = energy - energy.mean()
        power = float(np.clip((moved @ taken + POWER_WEIGHT) / (moved @ moved + POWER_WEIGHT), *POWERS))
        found = min(found, math.exp(float(energy.mean() - taken.mean() / power)))
    return found
