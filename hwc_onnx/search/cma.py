"""Referee `cmaes`: CMA-ES with margin over the menus, each unit's option index one whole number.

The menus are sorted from mild to aggressive, so an index is an ordered quantity. The distribution starts at the best plan of
the seeds; a refused plan's value is the baseline's energy and more, by how far it exceeds the limit. The optimiser is of the
package `cmaes`; Optuna's own wrapper stores it pickled in the study, which is why it is built here by telling it the
record again: the same seed and the same answers give the same next question.

Source: CMA-ES with margin, Hamano et al. (GECCO 2022), through the package cmaes; separable beyond `JOINT` units
(Ros & Hansen, PPSN 2008), where whole numbers are rounded instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import UsageError
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal

JOINT = 60
POPULATION = 8
SIGMA = 0.05
"""First spread, as a share of each menu."""


class CmaEs:
    """The strategy; units with a single option are left out."""

    def __init__(self, problem: Problem, seed: int) -> None:
        _package()
        self.problem = problem
        self.seed = seed
        self.space = Space(problem.units)
        self._moving = np.flatnonzero(self.space.sizes > 1)
        self._optimizer: Any = None
        self._asked: list[tuple[NDArray[np.float64], Choices]] = []
        self._answers: list[tuple[NDArray[np.float64], float]] = []
        self._told = 0

    def propose(self, history: History) -> Proposal | None:
        """The next plan that the optimiser asks about."""
        if not len(self._moving):
            return None
        if self._optimizer is None:
            seeds = [record for record in history.records if record.origin == "seed"]
            self._optimizer = self._started(seeds)
        answered = [record for record in history.records if record.origin == "referee"]
        while self._told < len(answered):
            told, _ = self._question(self._told)
            self._answers.append((told, self.value(answered[self._told])))
            self._told += 1
            if len(self._answers) == POPULATION:
                self._optimizer.tell(self._answers)
                self._answers = []
        return Proposal(self._question(self._told)[1], "referee")

    def value(self, record: Record) -> float:
        """Energy of an accepted plan, as a fraction of the baseline's; more than 1 for a refused one."""
        outcome = record.outcome
        if outcome.accepted(self.problem.limit_points):
            return outcome.energy
        excess = max(outcome.excess(self.problem.limit_points), 0.0) / max(self.problem.limit_points, 1e-9)
        return 1.0 + (float(np.log1p(excess)) if np.isfinite(excess) else 10.0)

    def _question(self, number: int) -> tuple[NDArray[np.float64], Choices]:
        """What the optimiser asks as its `number`-th question: its own point, and the plan."""
        while len(self._asked) <= number:
            asked = self._optimizer.ask()
            point, own = asked if isinstance(asked, tuple) else (asked, asked)
            choices = self.space.canonical(self.problem.start)
            sizes = self.space.sizes[self._moving]
            choices[self._moving] = np.clip(np.rint(point * (sizes - 1)), 0, sizes - 1).astype(np.int64)
            self._asked.append((own, self.space.canonical(choices)))
        return self._asked[number]

    def _started(self, seeds: list[Record]) -> Any:
        cmaes = _package()
        accepted = [record for record in seeds if record.outcome.accepted(self.problem.limit_points)]
        best = min(accepted, key=lambda record: record.outcome.energy) if accepted else None
        start = self.space.canonical(self.problem.start) if best is None else best.choices
        sizes = (self.space.sizes[self._moving] - 1).astype(np.float64)
        options = {
            "mean": start[self._moving] / sizes,
            "sigma": SIGMA,
            "bounds": np.tile([0.0, 1.0], (len(sizes), 1)),
            "seed": int(derived(self.seed, "cmaes", 0).integers(2**31 - 1)),
            "population_size": POPULATION,
        }
        if len(sizes) > JOINT:
            return cmaes.SepCMA(**options)
        return cmaes.CMAwM(steps=1.0 / sizes, **options)


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> CmaEs:
    """The referee of this problem.

    Raises:
        UsageError: the package cmaes is not installed.
    """
    return CmaEs(problem, seed)


def _package() -> Any:
    try:
        import cmaes
    except ImportError as error:
        raise UsageError(
            "--sampler cmaes: the package 'cmaes' is not installed; run: pip install 'hwc-onnx[cmaes]', or choose another sampler"
        ) from error
    return cmaes
