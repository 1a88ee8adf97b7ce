"""Local search: from the best structured nests to better ones, step by step.

A few settings (every storable width, tensors in DRAM or staying on chip) each follow their own best nest: all nests one
step away are counted at once, the best one is the next start, until no step helps. Every nest on these ways is a
candidate for all settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.candidates import Loops, joined
from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.neighbours import neighbours
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.passes import Passes
from hwc_onnx.cost.placing import Placed, Situation
from hwc_onnx.cost.rules import nests_allowed
from hwc_onnx.cost.scenarios import Scenarios

REACH = 1.15
"""A way that is this much behind the best one is given up."""

PLACES = (
    Situation(),
    Situation(True, True, 0.125),
    Situation(free=0.25),
)
"""Where tensors are, and how much of the home memory is free, while nests are judged."""

FOLLOWED = 2
"""How many of them (and every width) the ways follow."""

GAIN = 1e-3
"""A smaller share of the energy is not worth another round."""


@dataclass(frozen=True)
class Judge:
    """Energies of nests for the anchors."""

    hierarchy: Hierarchy
    nest: Nest
    unrolls: Ints
    cases: Scenarios

    @cached_property
    def passes(self) -> Passes:
        """Tables that all nests share."""
        return Passes(self.nest, self.unrolls)

    def counter(self, nests: Loops) -> Counter:
        """Counts words of these nests."""
        return Counter(self.hierarchy, self.nest, self.unrolls, *nests, passes=self.passes)

    def allowed_rows(self, nests: Loops) -> Ints:
        """Rows of the nests that the accelerator's rules allow; all if they allow none."""
        whole = self.passes.whole[nests.which]
        rows = np.nonzero(nests_allowed(self.hierarchy.profile.mapping, self.nest, whole, nests.dims, nests.trips))[0]
        return rows if rows.size else np.arange(len(nests.which))

    def allowed(self, nests: Loops) -> Loops:
        """Those nests."""
        return nests.take(self.allowed_rows(nests)) if self.hierarchy.profile.mapping.inner else nests

    def energies(self, nests: Loops, places: int = len(PLACES)) -> Floats:
        """Energy of what depends on the mapping, [anchors, n].

        Anchors: both operands at each width, and one at the widest with the other at the narrowest, at each of the first
        `places` of PLACES.
        """
        placed = Placed(self.counter(nests), self.cases)
        judged = PLACES[:places] if self.hierarchy.home >= 0 else PLACES[:1]
        last = len(self.cases.widths) - 1
        pairs = [(i, i) for i in range(last + 1)] + ([(0, last), (last, 0)] if last and places > FOLLOWED else [])
        return np.stack([placed.energy(inputs, weights, place) for place in judged for inputs, weights in pairs])


def refine(judge: Judge, start: Loops, rounds: int, ways: int) -> Loops:
    """Loops found on the ways from the best ones of `start`, best ones of each round, without `start` itself.

    Args:
        judge: counts energies.
        start: where to begin.
        rounds: most steps of a way.
        ways: how many ways are followed at once, of different unrolls.
    """
    total = judge.energies(start, FOLLOWED)
    current = start.take(_leaders(total, start.which, ways))
    best = judge.energies(current, FOLLOWED)
    found: list[Loops] = []
    sizes = np.array(judge.nest.sizes)
    for _ in range(rounds):
        steps = [judge.allowed(_around(judge.unrolls, sizes, current, i)) for i in range(len(current.which))]
        around = joined(steps)
        owner = np.repeat(np.arange(len(steps)), [len(step.which) for step in steps])
        total = judge.energies(around, FOLLOWED)
        chosen = []
        for i in range(len(steps)):
            mine = np.nonzero(owner == i)[0]
            for anchor, row in enumerate(mine[total[:, mine].argmin(axis=1)]):
                if total[anchor, row] < best[anchor, i] * (1 - GAIN) and best[anchor, i] <= best[anchor].min() * REACH:
                    chosen.append(int(row))
        if not chosen:
            break
        rows = np.array(sorted(set(chosen)))
        rows = rows[_leaders(total[:, rows], around.which[rows], ways)]
        current, best = around.take(rows), total[:, rows]
        found.append(current)
    return joined(found) if found else start.take(np.empty(0, np.int64))


def _leaders(total: Floats, which: Ints, ways: int) -> Ints:
    """Loops to follow: for each anchor in turn its best ones of different unrolls, `ways` in all."""
    orders = []
    for energies in total:
        order = np.argsort(energies, kind="stable")
        order = order[np.isfinite(energies[order])]
        orders.append(order[np.sort(np.unique(which[order], return_index=True)[1])])
    chosen: list[int] = []
    for place in range(max(len(order) for order in orders)):
        for order in orders:
            if place < len(order) and len(chosen) < ways and int(order[place]) not in chosen:
                chosen.append(int(order[place]))
    return np.array(sorted(chosen), dtype=np.int64)


def _around(unrolls: Ints, sizes: Ints, nests: Loops, row: int) -> Loops:
    present: NDArray[np.bool_] = nests.trips[row] > 1
    return Loops(*neighbours(unrolls, sizes, int(nests.which[row]), nests.dims[row, present], nests.trips[row, present]))
