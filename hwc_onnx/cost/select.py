"""The last stage of the mapping search: the winner of every scenario becomes a row of the table."""

from __future__ import annotations

import itertools

import numpy as np

from hwc_onnx.cost.access import Floats
from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.neighbours import fitted, with_every_dimension
from hwc_onnx.cost.operands import OPERANDS
from hwc_onnx.cost.placing import Placed, Situation
from hwc_onnx.cost.scenarios import Scenarios


def select(counter: Counter, cases: Scenarios, free_steps: int) -> MappingTable:
    """The mappings of `counter`'s nests that win some scenario.

    Scenarios: widths of both operands, densities, and for inputs and outputs either staying in the home memory or
    travelling through it, with all of it, a half, a quarter, ... for working tiles.
    """
    if counter.nests.count == 0:
        return _table(counter, None, [])
    placed = Placed(counter, cases)
    winners: set[tuple[int, ...]] = set()
    for where in _situations(counter, cases, free_steps):
        for inputs, weights in itertools.product(range(len(cases.widths)), repeat=2):
            energy = placed.energy(inputs, weights, where)
            row = int(energy.argmin())
            if np.isfinite(energy[row]):
                winners.add((row, inputs, weights, *placed.chosen(inputs, weights, where, row)))
    return _table(counter, placed, sorted(winners))


def _situations(counter: Counter, cases: Scenarios, free_steps: int) -> list[Situation]:
    if counter.hierarchy.home < 0:
        return [Situation(density=density) for density in cases.densities]
    found = []
    for inputs, outputs in itertools.product((False, True), repeat=2):
        # what stays needs no working tiles, so the free room matters less
        every = 1 if not (inputs or outputs) else 2
        for step, density in itertools.product(range(0, free_steps, every), cases.densities):
            found.append(Situation(inputs, outputs, 0.5**step, density))
    return found


def _table(counter: Counter, placed: Placed | None, winners: list[tuple[int, ...]]) -> MappingTable:
    """The winners as a table, equal rows once; empty if nothing fits the memories."""
    hierarchy, nests = counter.hierarchy, counter.nests
    columns = np.zeros((len(winners), len(hierarchy.columns)))
    needs = np.zeros((len(winners), len(hierarchy.held)))
    positions = np.zeros(needs.shape, dtype=np.int64)
    exact: dict[tuple[str, int, int, int], Floats] = {}
    slices = {operand: hierarchy.slice_of(operand) for operand in OPERANDS}
    for made, (row, inputs, weights, *numbers) in enumerate(winners):
        assert placed is not None
        at = 0
        for operand, width, number in zip(OPERANDS, (inputs, weights, inputs), numbers, strict=True):
            options = placed.options(operand, width)
            held = slice(at, at + options.needs.shape[2])
            needs[made, held], positions[made, held] = options.needs[number, row], options.positions[number, row]
            key = (operand, width, number, row)
            if key not in exact:
                exact[key] = counter.exact(operand, row, options.columns[number, row], options.positions[number, row])
            columns[made, slices[operand]] = exact[key]
            at = held.stop
    rows = np.array([winner[0] for winner in winners], dtype=np.int64)
    cycles, reduction = nests.cycles()[rows], counter.reduction()[rows]
    facts: Floats = np.concatenate([columns, needs, cycles[:, None], reduction[:, None]], axis=1)
    index = np.unique(facts, axis=0, return_index=True)[1]
    rows = rows[index]
    # loops that are longer than the layer needs count nothing more; they are written as long as they run
    dims, trips = with_every_dimension(nests.loop_dims[rows], nests.loop_sizes[rows])
    trips = fitted(dims, trips, -(-np.array(nests.nest.sizes) // nests.whole[nests.which[rows]]))
    return MappingTable(
        columns[index], needs[index], positions[index], cycles[index], reduction[index],
        nests.unrolls[nests.which[rows]], dims, trips,
    )  # fmt: skip
