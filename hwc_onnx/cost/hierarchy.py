"""A profile's memories as the mapper walks them: the chain of each operand, what each memory serves, what it holds.

A *boundary* is where words of an operand pass from a memory to the next inner one. When the innermost memory of an
operand serves several PEs there is one more boundary below it, the edge of the array, with no memory inside.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

from hwc_onnx.cost.accelerator import AcceleratorProfile, Memory, Operand
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.operands import OPERANDS


@dataclass(frozen=True)
class Boundary:
    """Words of `operand` pass between `child` (an index into the profile's memories, -1 for the PEs) and `parent`."""

    operand: Operand
    child: int
    parent: int
    crosses_array: bool


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Index view of a profile (compared and hashed by identity)."""

    profile: AcceleratorProfile

    @cached_property
    def spans(self) -> tuple[tuple[int, ...], ...]:
        """Array axes that each memory's instance serves."""
        names = [axis.name for axis in self.profile.array.axes]
        every = tuple(range(len(names)))
        return tuple(
            every if m.spans == "all" else tuple(names.index(s) for s in m.spans) for m in self.profile.memories
        )

    @cached_property
    def boundaries(self) -> tuple[Boundary, ...]:
        """All boundaries, by operand I, W, O, from the PEs outwards."""
        found = []
        for operand in OPERANDS:
            chain = [i for i, memory in enumerate(self.profile.memories) if operand in memory.operands]
            if self.spans[chain[0]]:
                found.append(Boundary(operand, -1, chain[0], True))
            for child, parent in itertools.pairwise(chain):
                found.append(Boundary(operand, child, parent, self.spans[child] != self.spans[parent]))
        return tuple(found)

    @cached_property
    def columns(self) -> tuple[tuple[Boundary, str], ...]:
        """What the columns of a mapping table count: words on the child's and the parent's side; of outputs also those
        that are fresh at the parent, and those that come back into the child."""
        sides = {"I": ("child", "parent"), "W": ("child", "parent"), "O": ("child", "parent", "fresh", "back")}
        return tuple((boundary, side) for boundary in self.boundaries for side in sides[boundary.operand])

    def slice_of(self, operand: Operand) -> slice:
        """The table columns of one operand."""
        own = [i for i, (boundary, _) in enumerate(self.columns) if boundary.operand == operand]
        return slice(own[0], own[-1] + 1)

    @cached_property
    def held(self) -> tuple[tuple[int, Operand], ...]:
        """(memory, operand) pairs that need room, in the order of a table's `needs` columns."""
        return tuple((b.child, b.operand) for b in self.boundaries if b.child >= 0)

    @cached_property
    def home(self) -> int:
        """Index of the memory where activations can stay between layers, -1 if there is none."""
        return next((i for i, memory in enumerate(self.profile.memories) if memory.home), -1)

    def registers(self, operand: Operand) -> Memory | None:
        """The memory inside each PE that feeds the multiplier with this operand, if there is one."""
        first = next(i for i, memory in enumerate(self.profile.memories) if operand in memory.operands)
        return self.profile.memories[first] if not self.spans[first] else None

    def capacity_bits(self, memory: int) -> float:
        """Bits that working tiles may take in one instance."""
        m = self.profile.memories[memory]
        if m.bytes is None:
            return float("inf")
        return m.bytes * 8 / (2 if m.double_buffered else 1)

    def room_bits(self, memory: int, operand: Operand, bits: int) -> float:
        """Room that one word takes. A register holds at least one: wider operands pass through it in pieces."""
        width = self.word_bits(memory, operand, bits)
        return min(width, self.capacity_bits(memory)) if self.profile.memories[memory].kind == "register" else width

    def word_bits(self, memory: int, operand: Operand, bits: int) -> int:
        """Width at which `memory` stores a `bits`-wide word; partial sums are as wide as the accumulator."""
        m = self.profile.memories[memory]
        return stored_bits(self.profile.mac.accumulator_bits if operand == "O" else bits, m.pack)
