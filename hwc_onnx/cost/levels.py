"""What one multiply-accumulate costs when its operands come straight from one memory: the shape of a hierarchy at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwc_onnx.cost.accelerator import AcceleratorProfile, Memory
from hwc_onnx.cost.laws import stored_bits

NATIVE = 8
"""bit: operands of the MAC that is fetched for."""


@dataclass(frozen=True)
class Level:
    """Energy of fetching the operands of one MAC from a memory, in the profile's unit; None for what it does not hold.

    `read_i` and `read_w` read one dense word of 8 bits at the width it is stored at, `psum` reads and writes a partial sum.
    """

    memory: str
    read_i: float | None
    read_w: float | None
    psum: float | None

    @property
    def total(self) -> float:
        """All of them together."""
        return sum(part for part in (self.read_i, self.read_w, self.psum) if part is not None)


def levels(profile: AcceleratorProfile) -> tuple[Level, ...]:
    """Every memory's level, from the multiplier outwards."""
    return tuple(_level(profile, memory) for memory in profile.memories)


def _level(profile: AcceleratorProfile, memory: Memory) -> Level:
    reads = {
        operand: stored_bits(NATIVE, memory.granules(operand == "W")) * memory.read_pj_per_bit
        for operand in memory.operands
    }
    both = memory.read_pj_per_bit + memory.write_pj_per_bit
    psum = stored_bits(profile.mac.accumulator_bits, memory.pack) * both if "O" in memory.operands else None
    return Level(memory.name, reads.get("I"), reads.get("W"), psum)


def instances(profile: AcceleratorProfile, memory: Memory) -> int:
    """How many of this memory the array has."""
    axes = profile.array.axes
    return 1 if memory.spans == "all" else prod(axis.size for axis in axes if axis.name not in memory.spans)
