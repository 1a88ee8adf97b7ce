"""Referee `spdy`: a random search for the factors that make a solver's additive damages come true.

Each unit's predicted damage is multiplied by a factor of its own, the solver gives the plan of least such damage at a given
energy, and the plan is measured. Factors are first drawn anew each time; from then on a tenth of the best ones are drawn
again. The energy asked for is a little below the best accepted one, so the search tightens as it succeeds.

Source: SPDY, Frantar & Alistarh (ICML 2022), section 3.2. Differs: the paper fixes the run time and looks for the least loss,
with dynamic programming and 100 random draws; here the loss is given and the energy goes down, the solver is Lagrangian,
and random draws take a quarter of the budget.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable

Array = NDArray[np.float64]

RANDOM_SHARE = 0.25
REDRAWN = 0.1
ASKED = 0.98
"""Share of the best accepted energy that is asked for."""
SMALLEST = 0.01
"""Factors are drawn uniformly from here to 1; at zero a unit would always be compressed fully."""


class Spdy:
    """The strategy; its factors are drawn again from the record whenever a study goes on."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        self.problem = problem
        self.seed = seed
        self.drawn = max(1, round(RANDOM_SHARE * trials))
        self.space = Space(problem.units)
        self.cost = DamageTable(problem).damage
        self.decoder = Decoder(problem, self.space)
        self._factors: list[Array | None] = []
        self._best: tuple[Record, Array] | None = None

    def propose(self, history: History) -> Proposal | None:
        """The solver's plan for the next factors; others are drawn while it is a known one."""
        while len(self._factors) < len(history):
            record = history.records[len(self._factors)]
            factors = self._draw(len(self._factors)) if record.origin == "referee" else None
            self._factors.append(factors)
            if factors is not None and self._better(record):
                self._best = record, factors
        best = history.best
        energy = ASKED * (best.outcome.energy if best is not None else 1.0)
        anchor = best.choices if best is not None else self.space.canonical(self.problem.start)
        return Proposal(self.at_energy(self.cost * self._draw(len(history))[:, None], energy, anchor), "referee")

    def at_energy(self, cost: Array, energy: float, start: Choices, steps: int = 12) -> Choices:
        """The plan of least summed `cost` [units, options] among those of at most `energy` (of the baseline's)."""
        low, high = 1e-3, 1e6
        point, found = start, None
        for _ in range(steps):
            middle = float(np.sqrt(low * high))
            point = self.decoder.descend(cost, middle, point)
            if self.problem.energy(point) <= energy:
                low, found = middle, point
            else:
                high = middle
        return point if found is None else found

    def _draw(self, finished: int) -> Array:
        """The factors of the trial after `finished` ones, [units]."""
        rng = derived(self.seed, "spdy", finished)
        fresh = rng.uniform(SMALLEST, 1.0, len(self.problem.units))
        if finished < self.drawn or self._best is None:
            return fresh
        again = rng.random(len(fresh)) < REDRAWN
        again[rng.integers(len(fresh))] = True
        return np.where(again, fresh, self._best[1])

    def _better(self, record: Record) -> bool:
        """Accepted with less energy; before anything was accepted, less damage."""
        if record.outcome.failure is not None:
            return False
        if self._best is None:
            return True
        limit, held = self.problem.limit_points, self._best[0].outcome
        accepted = record.outcome.accepted(limit)
        if accepted != held.accepted(limit):
            return accepted
        return record.outcome.energy < held.energy if accepted else record.outcome.damage < held.damage


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Spdy:
    """The referee of this problem."""
    return Spdy(problem, seed, trials)
