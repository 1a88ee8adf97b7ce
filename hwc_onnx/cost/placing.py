"""Many nests placed in the memories: the cheapest division of shared memories for a setting.

Each operand is placed for several shares of the memories that it shares with others; of all combinations, the cheapest
whose tiles really fit together counts. Operands that share no memory are independent of each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.counting import FULL_SPILL, Counter, Options
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.operands import OPERANDS
from hwc_onnx.cost.scenarios import Scenarios

SHARES = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0625)
"""Shares of a memory that one of two operands in it may take."""

FEW_SHARES = (1.0, 0.5, 0.25, 0.0625)
"""The same where all three operands share a memory."""


class Situation(NamedTuple):
    """Which tensors stay in the home memory, the free share of it, and the density of all operands."""

    input_stays: bool = False
    output_stays: bool = False
    free: float = 1.0
    density: float = 1.0


class Placed:
    """The nests of a counter, placed for every width."""

    def __init__(self, counter: Counter, cases: Scenarios) -> None:
        self.counter, self._cases = counter, cases
        self.hierarchy: Hierarchy = counter.hierarchy
        memories = self.hierarchy.profile.memories
        self._held = {
            operand: [b.child for b in self.hierarchy.boundaries if b.operand == operand and b.child >= 0]
            for operand in OPERANDS
        }
        self.shared = [i for i, m in enumerate(memories) if len(m.operands) > 1 and m.bytes is not None]
        shares = FEW_SHARES if any(len(memories[i].operands) > 2 for i in self.shared) else SHARES
        self._together = any("W" in memories[i].operands for i in self.shared)
        self._options: dict[tuple[Operand, int], Options] = {}
        for operand in OPERANDS:
            self._place(operand, shares)
        self._energies: dict[tuple[Operand, int, float, bool], Floats] = {}
        self._found: dict[object, tuple[Floats, Ints]] = {}
        self._divisions: dict[object, tuple[Floats, Floats | None]] = {}
        self._besides: dict[tuple[int, int], Floats] = {}

    def options(self, operand: Operand, width: int) -> Options:
        """Placements of an operand at a width (by number)."""
        return self._options[operand, width]

    def energy(self, inputs: int, weights: int, where: Situation) -> Floats:
        """Energy [n] of what depends on the mapping, for inputs and outputs at one width and weights at another (by number)."""
        if self._together:
            least = self._best({"I": inputs, "W": weights, "O": inputs}, where)[0]
        else:
            alone = self._best({"W": weights}, Situation(density=where.density))
            least = self._best({"I": inputs, "O": inputs}, where)[0] + alone[0]
        return least + self._extra(inputs, weights)

    def chosen(self, inputs: int, weights: int, where: Situation, row: int) -> tuple[int, ...]:
        """Numbers of the options of I, W and O that nest `row` has its least energy with."""
        if self._together:
            return tuple(self._best({"I": inputs, "W": weights, "O": inputs}, where)[1][:, row].tolist())
        alone = self._best({"W": weights}, Situation(density=where.density))[1][0, row]
        first, last = self._best({"I": inputs, "O": inputs}, where)[1][:, row].tolist()
        return first, int(alone), last

    def _extra(self, inputs: int, weights: int) -> Floats:
        bits = self._cases.widths[inputs], self._cases.widths[weights]
        if bits not in self._besides:
            self._besides[bits] = self._cases.besides(*bits, self.counter)
        return self._besides[bits]

    def _best(self, widths: dict[Operand, int], where: Situation) -> tuple[Floats, Ints]:
        key = (*widths.items(), where)
        if key not in self._found:
            self._found[key] = self._division(widths, where)
        return self._found[key]

    def _division(self, widths: dict[Operand, int], where: Situation) -> tuple[Floats, Ints]:
        """Least energy [n] of some operands together and their options [operands, n]."""
        total, taken = self._sums(widths, where._replace(free=1.0))
        if taken is not None:
            limit = self.hierarchy.capacity_bits(self.hierarchy.home) * where.free
            total = np.where(taken <= limit, total, np.inf)
        count = self.counter.nests.count
        flat = total.reshape(-1, count)
        best = flat.argmin(axis=0)
        return flat[best, self.counter.nests.rows], np.stack(np.unravel_index(best, total.shape[:-1]))

    def _sums(self, widths: dict[Operand, int], where: Situation) -> tuple[Floats, Floats | None]:
        """Energy and room in the home memory (None: nothing) of all divisions [k, .., n] that fit the other memories."""
        key = (*widths.items(), where)
        if key not in self._divisions:
            stays = {"I": where.input_stays, "O": where.output_stays, "W": False}
            total = _outer_sum([self._energy(o, i, where.density, stays[o]) for o, i in widths.items()])
            rooms = [self._rooms(o, i, where.input_stays) for o, i in widths.items()]
            home = None
            for m in self.shared:
                if any(m in room for room in rooms):
                    taken = _outer_sum([
                        room.get(m, np.zeros((len(self._options[o, i].valid), 1)))
                        for room, (o, i) in zip(rooms, widths.items(), strict=True)
                    ])  # fmt: skip
                    if m == self.hierarchy.home:
                        home = taken
                    else:
                        total = np.where(taken <= self.hierarchy.capacity_bits(m), total, np.inf)
            self._divisions[key] = total, home
        return self._divisions[key]

    def _place(self, operand: Operand, shares: tuple[float, ...]) -> None:
        """Place an operand for every width and share at once; equal capacities are counted once."""
        memories = self._held[operand]
        used = shares if any(m in self.shared for m in memories) else (1.0,)
        rows = [
            tuple(
                self.hierarchy.capacity_bits(m) * (share if m in self.shared else 1.0) // self.hierarchy.room_bits(m, operand, bits)
                for m in memories
            )
            for bits in self._cases.widths
            for share in used
        ]  # fmt: skip
        number = {row: i for i, row in enumerate(dict.fromkeys(rows))}
        every = self.counter.options(operand, np.array(list(number)).reshape(len(number), len(memories)))
        for i in range(len(self._cases.widths)):
            numbers = [number[row] for row in rows[i * len(used) : (i + 1) * len(used)]]
            self._options[operand, i] = every.take(numbers)

    def _energy(self, operand: Operand, width: int, density: float, stays: bool) -> Floats:
        """Energy of the words moved [k, n]; infinite where a tile does not fit or sums would leave the home memory."""
        key = (operand, width, density, stays)
        if key not in self._energies:
            options = self._options[operand, width]
            weights = self._cases.energies[operand, self._cases.widths[width], density, stays]
            valid = options.valid
            if stays and operand == "O":
                valid = valid & (options.columns[..., -3] - options.columns[..., -2] <= FULL_SPILL)
            self._energies[key] = np.where(valid, options.columns @ weights, np.inf)
        return self._energies[key]

    def _rooms(self, operand: Operand, width: int, input_stays: bool) -> dict[int, Floats]:
        """Bits taken in each shared memory [k, n]; an input that stays is there in full already."""
        needs, bits = self._options[operand, width].needs, self._cases.widths[width]
        return {
            m: needs[..., column] * self.hierarchy.room_bits(m, operand, bits)
            for column, m in enumerate(self._held[operand])
            if m in self.shared and not (operand == "I" and input_stays and m == self.hierarchy.home)
        }


def _outer_sum(parts: list[Floats]) -> Floats:
    """Sums of one row of each part [k_i, n]: [k_1, k_2, ..., n]."""
    total = parts[0]
    for part in parts[1:]:
        total = total[..., None, :] + part
    return total
