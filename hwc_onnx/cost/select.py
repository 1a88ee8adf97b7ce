"""Stage two of the mapping search: place nests in the buffers and keep the winner of every scenario."""

from __future__ import annotations

import itertools

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.counting import Counter, Options
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.operands import OPERANDS
from hwc_onnx.cost.scenarios import Scenarios


def select(counter: Counter, cases: Scenarios, free_steps: int, dims: Ints, sizes: Ints) -> MappingTable:
    """The mappings of `counter`'s nests that win some scenario.

    Scenarios: widths of both operands, densities, and for inputs and outputs either staying in the home memory or
    travelling through it, with all of it, a half, a quarter, ... for working tiles.
    """
    placed = {operand: _Placed(counter, cases, free_steps, operand) for operand in OPERANDS}
    psum = np.array([[cases.psum(a, w, counter) for w in cases.widths] for a in cases.widths])
    winners = np.concatenate([_winners(placed, psum, density, free_steps) for density in cases.densities])
    return _table(counter, placed, np.unique(winners, axis=0), dims, sizes)


class _Placed:
    """One operand placed for every width and amount of free space (`number` [widths, free steps] of the option)."""

    def __init__(self, counter: Counter, cases: Scenarios, free_steps: int, operand: Operand) -> None:
        hierarchy = counter.hierarchy
        memories = [b.child for b in hierarchy.boundaries if b.operand == operand and b.child >= 0]
        wanted = np.empty((len(cases.widths), free_steps, len(memories)))
        for (i, bits), step in itertools.product(enumerate(cases.widths), range(free_steps)):
            for column, m in enumerate(memories):
                shared = len(hierarchy.profile.memories[m].operands) > 1
                room = hierarchy.capacity_bits(m) / (2**step if shared else 1)
                wanted[i, step, column] = room // hierarchy.room_bits(m, operand, bits)
        unique, number = np.unique(wanted.reshape(-1, len(memories)), axis=0, return_inverse=True)
        self.number: Ints = number.reshape(len(cases.widths), free_steps)
        self.options: Options = counter.options(operand, unique)
        self._cases, self._operand = cases, operand

    def energy(self, density: float, stays: bool) -> Floats:
        """Energy of the words moved, [widths, free steps, n]; infinite where a tile does not fit."""
        found = []
        for i, bits in enumerate(self._cases.widths):
            weights = self._cases.energies[self._operand, bits, density, stays]
            rows = self.number[i]
            found.append(np.where(self.options.valid[rows], self.options.columns[rows] @ weights, np.inf))
        return np.stack(found)


def _winners(placed: dict[Operand, _Placed], psum: Floats, density: float, free_steps: int) -> Ints:
    """(nest, option of I, option of W, option of O) of the best nest of each scenario at one density, [w, 4]."""
    last = free_steps - 1
    go_i, go_w, go_o = (placed[operand].energy(density, False) for operand in OPERANDS)
    stay_i, stay_o = placed["I"].energy(density, True)[:, 0], placed["O"].energy(density, True)[:, 0]
    # axes: input width, weight width, free space, nest
    inputs, outputs = go_i[:, None], go_o[:, None]
    weights = go_w[None, :, :1] + psum[:, :, None]
    fixed_i, fixed_o = stay_i[:, None, None], stay_o[:, None, None]
    totals = [
        (fixed_i + weights + fixed_o, (False, False, False)),
        (inputs + weights + fixed_o, (True, False, False)),
        (fixed_i + weights + outputs, (False, False, True)),
        (inputs + weights + outputs[:, :, last:], (True, False, None)),
        (inputs + (go_w[None] + psum[:, :, None]) + outputs, (True, True, True)),
    ]
    found = []
    for total, moving in totals:
        best = total.argmin(axis=3)
        least = np.take_along_axis(total, best[..., None], axis=3)[..., 0]
        for a, w, step in zip(*np.nonzero(np.isfinite(least)), strict=True):
            steps = [last if follows is None else int(step) if follows else 0 for follows in moving]
            numbers = [
                placed["I"].number[a, steps[0]],
                placed["W"].number[w, steps[1]],
                placed["O"].number[a, steps[2]],
            ]
            found.append([best[a, w, step], *numbers])
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def _table(counter: Counter, placed: dict[Operand, _Placed], winners: Ints, dims: Ints, sizes: Ints) -> MappingTable:
    """The winners as a table, equal rows once."""
    rows = winners[:, 0]
    picked = [placed[operand].options for operand in OPERANDS]
    columns = np.concatenate([o.columns[winners[:, 1 + i], rows] for i, o in enumerate(picked)], axis=1)
    needs = np.concatenate([o.needs[winners[:, 1 + i], rows] for i, o in enumerate(picked)], axis=1)
    cycles, reduction = counter.nests.cycles()[rows], counter.reduction()[rows]
    facts = np.concatenate([columns, needs, cycles[:, None], reduction[:, None]], axis=1)
    index = np.unique(facts, axis=0, return_index=True)[1]
    rows = rows[index]
    unroll = counter.nests.unrolls[counter.nests.which[rows]]
    return MappingTable(
        columns[index], needs[index], cycles[index], reduction[index], unroll, dims[rows], sizes[rows]
    )  # fmt: skip
