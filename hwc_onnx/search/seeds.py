"""The first plans of a study, the same for every strategy: the INT8 baseline, then solver points around the limit.

They bracket the limit: each solver point aims at a drop that the drop map, refitted to what was measured so far,
expects there. Every seed counts as an evaluation. A cold start has the baseline alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.space import Space
from hwc_onnx.search.surrogate import DamageTable

AIMS = (1.0, 0.5, 1.5, 0.8, 1.0)
"""Drops aimed at, as multiples of the drop at which a plan is just accepted."""
SEEDS = 1 + len(AIMS)
Start = Literal["seeds", "cold"]
STARTS: tuple[Start, ...] = ("seeds", "cold")


def first_plans(start: Start) -> int:
    """How many plans a study begins with, at most."""
    return SEEDS if start == "seeds" else 1


def derived(seed: int, strategy: str, finished: int) -> np.random.Generator:
    """The generator for everything drawn while `finished` trials are done: a resumed study draws the same."""
    return np.random.default_rng([seed, *strategy.encode(), finished])


def middle_starts(space: Space, problem: Problem) -> list[Choices]:
    """Three points to descend from: the baseline, the middle and the aggressive corner."""
    return [space.canonical(problem.start), space.canonical(space.sizes // 2), space.canonical(space.sizes - 1)]


def seed_plan(
    problem: Problem, space: Space, decoder: Decoder, table: DamageTable, history: History, start: Start = "seeds"
) -> Choices | None:
    """The next plan to begin with, or None when all were tried (a decoded plan that is known already is skipped)."""
    finished = len(history)
    if finished == 0:
        return space.canonical(problem.start)
    if finished >= first_plans(start):
        return None
    model = Model(problem, table, history, derived(0, "seeds", finished))
    aim = AIMS[finished - 1] * model.accepted_drop()
    for factor in (1.0, 0.9, 1.1, 0.8, 1.25):
        plan = model.decode(decoder, factor * aim, middle_starts(space, problem)).choices
        if history.find(plan) is None:
            return plan
    return None
