"""The referee without learning agents: refit the surrogate, decode at the limit, then search around the best.

What the composite agent must not be worse than.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History
from hwc_onnx.search.local import expected_improvement, neighbours_of, unseen
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable


class Knapsack:
    """Solver proposals and local moves, whichever is expected to improve more."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.space = Space(problem.units)
        self.table = DamageTable(problem)
        self.decoder = Decoder(problem, self.space)
        self.seed = seed

    def propose(self, history: History) -> Proposal | None:
        """The unseen plan of largest expected improvement."""
        rng = derived(self.seed, "knapsack", len(history))
        model = Model(self.problem, self.table, history, rng)
        best = history.best
        anchor = best.choices if best is not None else self.space.canonical(self.problem.start)
        pool: list[tuple[Choices, str]] = []
        limit = model.accepted_drop()
        starts = middle_starts(self.space, self.problem) if len(history) % 8 == 0 else [anchor]
        for aim in (0.7, 1.0):
            pool.append((model.decode(self.decoder, aim * limit, starts).choices, "rollout"))
        if best is not None:
            pool += [(plan, "local_search") for plan in neighbours_of(self.decoder, model, anchor, rng)]
        fresh = unseen([plan for plan, _ in pool], history)
        if not fresh:
            fresh = unseen([self.space.random(rng) for _ in range(8)], history)
        if not fresh:
            return None
        energy = best.outcome.energy if best is not None else np.inf
        gain = expected_improvement(model, self.decoder, fresh, anchor, min(energy, 1.0))
        chosen = fresh[int(np.argmax(gain))]
        origin = next((origin for plan, origin in pool if np.array_equal(plan, chosen)), "local_search")
        return Proposal(chosen, origin, model.expected(chosen))


def make_knapsack(problem: Problem, seed: int, trials: int, folder: Path | None) -> Knapsack:
    """The referee of this problem."""
    return Knapsack(problem, seed)
