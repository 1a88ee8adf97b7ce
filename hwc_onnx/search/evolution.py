"""Referee `evolution`: ageing evolution over the menus.

The population is the last `POPULATION` measured plans, whoever proposed them. A parent wins a tournament (accepted plans
by energy, then the others by how far they exceed the limit) and one to `MOST` of its units move a few options up or down.

Source: regularised evolution, Real et al. (AAAI 2019), algorithm 1. Differs: menus are ordered, so a mutation is a small
step; population and tournament are smaller, for budgets of a few hundred.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal

POPULATION, TOURNAMENT = 32, 8
MOST = 3
"""Units that one mutation moves at most."""
REACH = 3
"""Options that a unit moves at most."""
ATTEMPTS = 64


class Evolution:
    """The strategy; it keeps nothing but the record."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.seed = seed
        self.space = Space(problem.units)
        self._movable = np.flatnonzero(self.space.sizes > 1)

    def propose(self, history: History) -> Proposal | None:
        """A mutated winner that was not measured yet; None when mutation finds none."""
        rng = derived(self.seed, "evolution", len(history))
        population = history.measured()[-POPULATION:]
        if not population:
            return Proposal(self.space.canonical(self.problem.start), "referee")
        for _ in range(ATTEMPTS):
            drawn = rng.choice(len(population), size=min(TOURNAMENT, len(population)), replace=False)
            parent = min((population[i] for i in drawn), key=self._rank)
            child = self.mutated(parent.choices, rng)
            if history.find(child) is None:
                return Proposal(child, "referee")
        return None

    def mutated(self, parent: Choices, rng: np.random.Generator) -> Choices:
        """A canonical plan a few steps from `parent`."""
        child = parent.copy()
        if len(self._movable):
            count = min(int(rng.integers(1, MOST + 1)), len(self._movable))
            for u in rng.choice(self._movable, size=count, replace=False):
                step = int(rng.integers(1, REACH + 1)) * (1 if rng.random() < 0.5 else -1)
                child[u] = np.clip(child[u] + step, 0, self.space.sizes[u] - 1)
        return self.space.canonical(child)

    def _rank(self, record: Record) -> tuple[bool, float]:
        accepted = record.outcome.accepted(self.problem.limit_points)
        worst = max(0.0, *record.outcome.limits.values()) if record.outcome.limits else 0.0
        excess = max(record.outcome.excess(self.problem.limit_points), 0.0) + worst
        return not accepted, record.outcome.energy if accepted else excess


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Evolution:
    """The referee of this problem."""
    return Evolution(problem, seed)
