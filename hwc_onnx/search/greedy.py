"""Referee `greedy`: the move that saves most energy for its predicted damage, again and again.

The moves are put in order once, by the damage table as it is, from the INT8 baseline to where nothing saves any more. The
longest accepted part of that path is found by bisection; from there the same rule goes on with one move at a time, and a
move that was refused is not made again on the plan that it was refused on.

Source: greedy bit allocation by sensitivity, as in HAQ's and HAWQ's rankings; Dong et al. (ICCV 2019), section 3.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable

LEAST_SAVED = 1e-6
"""Moves that save a smaller share of the baseline's energy are not made."""


class Greedy:
    """Proposes along the greedy path, then single moves from the best plan."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.space = Space(problem.units)
        self.cost = DamageTable(problem).damage
        self.decoder = Decoder(problem, self.space)
        self._path: list[Choices] | None = None

    def propose(self, history: History) -> Proposal | None:
        """The next plan of the bisection, or the next single move; None when no move is left."""
        if self._path is None:
            self._path = self.path(self.space.canonical(self.problem.start))
        if history.find(self._path[0]) is None:
            return Proposal(self._path[0], "referee")
        low, high = 0, len(self._path)
        while high - low > 1:
            middle = (low + high) // 2
            record = history.find(self._path[middle])
            if record is None:
                return Proposal(self._path[middle], "referee")
            low, high = (middle, high) if self._accepted(record, history) else (low, middle)
        best = history.best
        anchor = self._path[low] if best is None else best.choices
        for plan in self.moves(anchor):
            if history.find(plan) is None:
                return Proposal(plan, "referee")
        return None

    def path(self, start: Choices) -> list[Choices]:
        """Plans from `start` on, each one move further."""
        plans = [start]
        while True:
            following = self.moves(plans[-1])
            if not following:
                return plans
            plans.append(following[0])

    def moves(self, point: Choices) -> list[Choices]:
        """All single moves that save energy, the one with the least damage per energy saved first."""
        found: list[tuple[float, int, int]] = []
        for u in range(len(point)):
            row, damages = self.decoder.unit_rows(self.cost, point, u)
            saved, added = row[point[u]] - row, damages - damages[point[u]]
            for o in np.flatnonzero((saved > LEAST_SAVED) & np.isfinite(added)):
                found.append((float(added[o] / saved[o]), u, int(o)))
        plans = []
        for _, u, option in sorted(found):
            plan = point.copy()
            plan[u] = option
            plan = self.space.canonical(plan)
            if not np.array_equal(plan, point):
                plans.append(plan)
        return plans

    def _accepted(self, record: Record, history: History) -> bool:
        return record.outcome.accepted(history.limit_points)


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Greedy:
    """The referee of this problem; nothing about it is random."""
    return Greedy(problem)
