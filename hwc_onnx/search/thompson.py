"""Referee `thompson`: Thompson sampling on a Bayesian linear regression of damage, decoded by the same solver.

    damage(x) = sum_u theta_u d_u(x) + sum_(u, v) phi_uv sqrt(d_u(x) d_v(x)) + floor

with d the damage table, pairs (u, v) of units that touch a common layer or follow one another, and a floor that even the INT8
baseline has. Errors are relative, so each trial's row is divided by its measured damage; theta has a normal prior around 1,
phi and the floor around 0. The posterior is a normal distribution in closed form; each trial draws from it and takes the plan of least energy at the damage where the limit lies.

Source: Thompson sampling for linear models, Agrawal & Goyal (ICML 2013), algorithm 1.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.guard import fit_drop_map
from hwc_onnx.search.history import History, plans_of
from hwc_onnx.search.problem import ACCEPTED_ERRORS, Choices, Problem
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable

Array = NDArray[np.float64]

OWN_SPREAD, PAIR_SPREAD = 0.7, 0.3
FLOOR_SPREAD = 1e-4
"""Of the floor (assumed): INT8 baselines of the sample models do damages of 0.00004 to 0.00015."""
MOST_FLOOR = 0.5
"""Share of the allowed damage that a drawn floor takes at most."""
NOISE = 0.15
"""Relative error of the model at the right coefficients (assumed)."""
LEAST = 0.05
"""Coefficients are drawn no smaller: a unit never does good."""
ROUNDS = 3
"""Pairs depend on both plans' options: costs are taken at the last plan, this many times."""
ATTEMPTS = 8


class Thompson:
    """The strategy; its posterior is computed anew from the record."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.seed = seed
        self.space = Space(problem.units)
        self.table = DamageTable(problem)
        self.decoder = Decoder(problem, self.space)
        self.pairs = _pairs(problem)

    def propose(self, history: History) -> Proposal | None:
        """The solver's plan under coefficients drawn from the posterior."""
        rng = derived(self.seed, "thompson", len(history))
        mean, root = self.posterior(history)
        damage = self._allowed(history)
        best = history.best
        starts = middle_starts(self.space, self.problem) if best is None else [best.choices]
        plan = None
        for attempt in range(ATTEMPTS):
            drawn = np.maximum(mean + root @ rng.normal(size=len(mean)), 0.0)
            drawn[: len(self.table.rows)] = np.maximum(drawn[: len(self.table.rows)], LEAST)
            allowed = damage * 0.97**attempt
            plan = self.decoded(drawn, allowed - min(float(drawn[-1]), MOST_FLOOR * allowed), starts)
            if history.find(plan) is None:
                return Proposal(plan, "referee")
        return None if plan is None else Proposal(plan, "referee")

    def features(self, plans: NDArray[np.int64]) -> Array:
        """Each unit's damage, the root of each pair's product, and 1 for the floor, [plans, units + pairs + 1]."""
        own = self.table.damage[self.table.rows, plans]
        left, right = self.pairs[:, 0], self.pairs[:, 1]
        return np.concatenate([own, np.sqrt(own[:, left] * own[:, right]), np.ones((len(plans), 1))], axis=1)

    def posterior(self, history: History) -> tuple[Array, Array]:
        """Mean [units + pairs + 1] and a root of the covariance of the coefficients."""
        units = len(self.table.rows)
        prior = np.concatenate([np.ones(units), np.zeros(len(self.pairs) + 1)])
        spread = np.concatenate([np.full(units, OWN_SPREAD), np.full(len(self.pairs), PAIR_SPREAD), [FLOOR_SPREAD]])
        records = [record for record in history.measured() if record.outcome.damage > 0.0]
        if not records:
            return prior, np.diag(spread)
        measured = np.array([record.outcome.damage for record in records])
        rows = self.features(plans_of(records, units)) / measured[:, None]
        precision = rows.T @ rows / NOISE**2 + np.diag(1.0 / spread**2)
        pull = rows.T @ np.ones(len(rows)) / NOISE**2 + prior / spread**2
        factor = np.linalg.cholesky(precision)
        root: Array = np.linalg.inv(factor).T
        return root @ (root.T @ pull), root

    def decoded(self, coefficients: Array, damage: float, starts: list[Choices]) -> Choices:
        """The plan of least energy whose damage by these coefficients, the floor apart, is at most `damage`."""
        units = len(self.table.rows)
        cost = self.table.damage * coefficients[:units, None]
        plan, multiplier = starts[0], 0.0
        for turn in range(ROUNDS):
            solved = self.decoder.solve(self._with_pairs(cost, coefficients[units:-1], plan), damage, starts, multiplier)
            if np.array_equal(solved.choices, plan) and turn:
                break
            plan, multiplier, starts = solved.choices, solved.multiplier, [solved.choices]
        return plan

    def _with_pairs(self, cost: Array, phi: Array, plan: Choices) -> Array:
        """Costs with each pair's damage shared equally by its two units, the other unit standing as in `plan`."""
        own = self.table.damage[self.table.rows, plan]
        result = cost.copy()
        for (u, v), strength in zip(self.pairs, phi, strict=True):
            if strength > 0.0 and own[u] > 0.0 and own[v] > 0.0:
                result[u] += 0.5 * strength * np.sqrt(self.table.damage[u] * own[v])
                result[v] += 0.5 * strength * np.sqrt(self.table.damage[v] * own[u])
        return result

    def _allowed(self, history: History) -> float:
        """The damage at which a plan is expected to be just accepted."""
        limit = self.problem.limit_points
        outcomes = [record.outcome for record in history.measured()]
        curve = fit_drop_map(outcomes, limit)
        near = [o.standard_error for o in outcomes if o.complete and 0.3 * limit <= o.drop_points <= 2.5 * limit]
        error = ACCEPTED_ERRORS * float(np.median(near)) if near else 0.3 * limit
        return max(curve.damage(limit - min(error, 0.9 * limit)), 1e-7)


def _pairs(problem: Problem) -> NDArray[np.int64]:
    """Pairs of units that touch a common layer, and of layers that follow one another, [pairs, 2]."""
    found: set[tuple[int, int]] = set()
    by_layer: dict[str, list[int]] = {}
    for u, unit in enumerate(problem.units):
        for layer in unit.layers:
            by_layer.setdefault(layer, []).append(u)
    for members in by_layer.values():
        found |= {(a, b) for i, a in enumerate(members) for b in members[i + 1 :]}
    layers = [u for u, unit in enumerate(problem.units) if unit.kind == "layer"]
    found |= set(pairwise(layers))
    return np.array(sorted(found), dtype=np.int64).reshape(-1, 2)


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Thompson:
    """The referee of this problem."""
    return Thompson(problem, seed)
