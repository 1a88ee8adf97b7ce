"""The solver: least energy at a given damage, by a Lagrange multiplier and coordinate descent over units.

    minimise  E(x) + mu * D(x),   D(x) = sum_u cost[u, x_u],   mu bisected until D(x) meets the target

Given stored-tensor widths and channel choices the layers separate; given the layers each stored width and each
channel group is enumerated; the two alternate to a fixed point from several starts. Energies are looked up again
whenever a neighbour moved, so couplings are honoured; the final choice among starts uses the exact energy.
Source: multiple-choice knapsack by Lagrangian relaxation, Shoham & Gersho (IEEE TASSP 1988), section III.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.energy import EnergyRows
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.space import Space

Array = NDArray[np.float64]
MEMORY = 50_000


@dataclass(frozen=True)
class Decoded:
    """A solution: canonical choices, its summed damage and its energy by the tables (the caller takes the exact one)."""

    choices: Choices
    damage: float
    multiplier: float


class Decoder:
    """Solves min E + mu*D for given per-option damage costs [units, options] (infinite: option not allowed)."""

    def __init__(self, problem: Problem, space: Space, rows: EnergyRows | None = None) -> None:
        self.problem = problem
        self.space = space
        self.rows = rows or EnergyRows(problem, space)
        kinds = [unit.kind for unit in problem.units]
        self._order = [u for kind in ("channels", "activation", "layer") for u in range(len(kinds)) if kinds[u] == kind]
        self._producers = {u: np.array(layers, dtype=np.int64) for u, layers in space.producers.items()}
        self._blocks: dict[tuple[int, bytes], tuple[Array, NDArray[np.int64]]] = {}
        self._priced: dict[tuple[int, bytes], Array] = {}
        self._priced_by: Array | None = None
        self._units = np.arange(len(kinds))
        self._near = [np.append(near, u) for u, near in enumerate(self.rows.neighbours)]
        self.mildest = np.zeros(len(kinds), dtype=np.int64)

    def solve(
        self, cost: Array, target: float, starts: list[Choices], multiplier: float = 0.0, steps: int = 10
    ) -> Decoded:
        """The cheapest plan found whose damage is at most `target` (the mildest one if nothing else is).

        A positive `multiplier` is a first guess from an earlier, similar solve and shortens the bisection.
        """
        found: list[tuple[float, Decoded]] = []
        for start in starts:
            tightest: Decoded | None = None
            low, high = (multiplier / 8.0, multiplier * 8.0) if multiplier > 0.0 else (1e-4 / target, 1e3 / target)
            point = self.space.canonical(start)
            for _ in range(steps if multiplier <= 0.0 else 6):
                middle = float(np.sqrt(low * high))
                point = self.descend(cost, middle, point)
                damage = self.damage_of(cost, point)
                if damage > target:
                    low = middle
                else:
                    high = middle
                    tightest = Decoded(point, damage, middle)
            if tightest is not None:
                found.append((self.problem.energy(tightest.choices), tightest))
        if not found:
            mild = self.descend(cost, 1e6 / target, self.mildest)
            return Decoded(mild, self.damage_of(cost, mild), 1e3 / target)
        best = min(found, key=lambda item: item[0])[1]
        filled = self.fill(cost, target, best.choices)
        return Decoded(filled, self.damage_of(cost, filled), best.multiplier)

    def descend(self, cost: Array, multiplier: float, start: Choices, sweeps: int = 4) -> Choices:
        """Coordinate descent on E + mu*D to a fixed point."""
        point = self.space.canonical(start)
        dirty = np.ones(len(point), dtype=np.bool_)
        for _ in range(sweeps):
            before = point.copy()
            for u in self._order:
                if not dirty[u]:
                    continue
                dirty[u] = False
                old = point
                best = self._best_channels if self.space.producers.get(u) else self._best
                point = best(cost, multiplier, point, u)
                if point is not old:
                    for moved in np.flatnonzero(point != old):
                        dirty[self._near[moved]] = True
                    dirty[u] = False
            if np.array_equal(before, point):
                break
        return point

    def fill(self, cost: Array, target: float, start: Choices, moves: int = 12) -> Choices:
        """Spend what is left of the target: the single moves that save most energy and still fit."""
        point = start
        damage = self.damage_of(cost, point)
        for _ in range(moves):
            best: tuple[float, int, int] | None = None
            for u in range(len(point)):
                if self.space.producers.get(u):
                    continue
                row, damages = self.unit_rows(cost, point, u)
                saved = row - row[point[u]]
                added = damages - damages[point[u]]
                fits = (damage + added <= target) & (saved < -1e-9)
                if fits.any():
                    o = int(np.flatnonzero(fits)[np.argmin(saved[fits])])
                    if best is None or saved[o] < best[0]:
                        best = (float(saved[o]), u, o)
            if best is None:
                break
            point = point.copy()
            point[best[1]] = best[2]
            point = self.space.canonical(point)
            damage = self.damage_of(cost, point)
        return point

    def damage_of(self, cost: Array, choices: Choices) -> float:
        """Summed damage of canonical choices."""
        return float(cost[self._units, choices].sum())

    def unit_rows(self, cost: Array, point: Choices, unit: int) -> tuple[Array, Array]:
        """Energy and damage of each option of a unit at this point, [options] each, as the plan would read them."""
        row = self.rows.row(point, unit)
        damages = cost[unit, : len(row)]
        owner = self.space.owner.get(unit)
        if owner is not None and self.space.pruned[owner][point[owner]]:
            plain = self.space.plain[unit]
            row, damages = row[plain], damages[plain]
        return row, damages

    def _best(self, cost: Array, multiplier: float, point: Choices, u: int) -> Choices:
        row, damages = self.unit_rows(cost, point, u)
        total = row + multiplier * damages
        chosen = int(total.argmin())
        if total[chosen] >= total[point[u]] - 1e-12:
            return point
        moved = point.copy()
        moved[u] = self._read(point, u, chosen)
        return moved

    def _best_channels(self, cost: Array, multiplier: float, point: Choices, u: int) -> Choices:
        """A channel group moves together with its producers' best answers, since pruning it ends theirs."""
        key = (u, point[self._near[u]].tobytes())
        energy, answers = self._block(key, point)
        producers = self._producers[u]
        if cost is not self._priced_by:  # multipliers change, costs stay: a bisection asks the same many times
            self._priced_by, self._priced = cost, {}
        damages = self._priced.get(key)
        if damages is None:
            damages = self._priced[key] = cost[producers[None, :, None], answers]
        objective = energy + multiplier * damages
        best = objective.argmin(axis=2)
        total = objective.min(axis=2).sum(axis=1) + multiplier * cost[u, : len(energy)]
        chosen = int(total.argmin())
        moved = point.copy()
        moved[u] = chosen
        moved[producers] = answers[chosen, np.arange(len(producers)), best[chosen]]
        return point if bool((moved == point).all()) else moved

    def _block(self, key: tuple[int, bytes], point: Choices) -> tuple[Array, NDArray[np.int64]]:
        """For each option of a channel group and each answer of each producer: energy relative to the first option
        with the producers as they are, and the option that the answer is read as; [options, producers, answers].
        `key` is the group's unit and the choices around it.
        """
        u = key[0]
        found = self._blocks.get(key)
        if found is not None:
            return found
        if len(self._blocks) >= MEMORY:
            self._blocks.clear()
        row = self.rows.row(point, u)
        producers = self._producers[u]
        widest = int(self.space.sizes[producers].max(initial=1))
        energy = np.full((len(row), len(producers), widest), np.inf)
        answers = np.zeros((len(row), len(producers), widest), dtype=np.int64)
        for o in range(len(row)):
            moved = point.copy()
            moved[u] = o
            for layer in producers:
                moved[layer] = self._read(moved, layer, int(moved[layer]))
            for p, layer in enumerate(producers):
                here = self.rows.row(moved, layer)
                options = self.space.plain[layer] if self.space.pruned[u][o] else np.arange(len(here))
                energy[o, p, : len(here)] = here[options] - here[moved[layer]]
                answers[o, p, : len(here)] = options
            energy[o, 0] += row[o]
        self._blocks[key] = energy, answers
        return energy, answers

    def _read(self, point: Choices, unit: int, option: int) -> int:
        """The option as the plan reads it: unpruned while the layer's channel group is pruned."""
        owner = self.space.owner.get(unit)
        if owner is not None and self.space.pruned[owner][point[owner]]:
            return int(self.space.plain[unit][option])
        return option
