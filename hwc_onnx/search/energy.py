"""Energy tables: what every option of a unit costs at the current point, from remembered local parts.

The energy is a sum of factors with small scopes, so the row of a unit needs only the factors that contain it, and a
row is the same wherever its neighbourhood is the same. Both facts are remembered; a solver then asks for thousands of
rows and computes few.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.space import Space

MEMORY = 400_000


class EnergyRows:
    """Rows of option energies; `neighbours[u]` are the other units that change the row of u."""

    def __init__(self, problem: Problem, space: Space) -> None:
        self._factors = problem.factors
        self._space = space
        self._containing: list[list[int]] = [[] for _ in problem.units]
        near: list[set[int]] = [set() for _ in problem.units]
        for f, factor in enumerate(problem.factors):
            for u in factor.scope:
                self._containing[u].append(f)
                near[u] |= set(factor.scope)
        for u, producers in space.producers.items():
            near[u] |= {other for layer in producers for other in near[layer]}
        for u, members in enumerate(near):
            members.discard(u)
        self.neighbours = [np.array(sorted(members), dtype=np.int64) for members in near]
        self._rows: dict[tuple[int, bytes], NDArray[np.float64]] = {}
        self._points: dict[tuple[int, tuple[int, ...]], float] = {}
        self._lines: dict[tuple[int, int, tuple[int, ...]], NDArray[np.float64]] = {}
        self._scopes = [tuple(int(u) for u in factor.scope) for factor in problem.factors]

    def row(self, choices: Choices, unit: int) -> NDArray[np.float64]:
        """Energy of the options of `unit` minus that of its first option, [options]. The options are read as they
        stand; a channel group's pruning also ends its producers' own pruning.
        """
        key = (unit, choices[self.neighbours[unit]].tobytes())
        found = self._rows.get(key)
        if found is None:
            if len(self._rows) >= MEMORY:
                self._rows.clear()
            found = self._compute(choices, unit)
            self._rows[key] = found
        return found

    def total(self, choices: Choices) -> float:
        """The sum of all factors at canonical choices."""
        read = choices.tolist()
        return sum(self._part(f, read) for f in range(len(self._factors)))

    def difference(self, before: Choices, after: Choices) -> float:
        """`total(after) - total(before)`, from the factors of the units that moved alone."""
        moved = np.flatnonzero(before != after)
        touched = {f for u in moved for f in self._containing[u]}
        old, new = before.tolist(), after.tolist()
        return sum(self._part(f, new) - self._part(f, old) for f in sorted(touched))

    def _compute(self, choices: Choices, unit: int) -> NDArray[np.float64]:
        producers = self._space.producers.get(unit, ())
        row = np.zeros(int(self._space.sizes[unit]))
        if producers:
            factors = sorted({f for u in (unit, *producers) for f in self._containing[u]})
            changed = choices.copy()
            for option in range(len(row)):
                changed[unit] = option
                read = self._space.canonical(changed).tolist()
                row[option] = sum(self._part(f, read) for f in factors)
        else:
            read = choices.tolist()
            for f in self._containing[unit]:
                row += self._line(f, unit, read)
        relative: NDArray[np.float64] = row - row[0]
        return relative

    def _line(self, factor: int, unit: int, choices: list[int]) -> NDArray[np.float64]:
        """A factor at every option of one unit of its scope, [options]: far fewer than rows, since a row has several factors."""
        scope = self._scopes[factor]
        key = (factor, unit, tuple([choices[u] for u in scope if u != unit]))
        found = self._lines.get(key)
        if found is None:
            if len(self._lines) >= MEMORY:
                self._lines.clear()
            moved = list(choices)
            found = np.empty(int(self._space.sizes[unit]))
            for option in range(len(found)):
                moved[unit] = option
                found[option] = self._part(factor, moved)
            self._lines[key] = found
        return found

    def _part(self, factor: int, choices: list[int]) -> float:
        key = (factor, tuple([choices[u] for u in self._scopes[factor]]))
        found = self._points.get(key)
        if found is None:
            if len(self._points) >= MEMORY:
                self._points.clear()
            found = self._points[key] = self._factors[factor].energy(key[1])
        return found
