"""Two accelerators, described once for every tool: an array, memories in words, energies per word, in units of one MAC.

A word is one operand element; partial sums are as wide as any other word, so that no tool's rule for widening them
matters. `rows` and `columns` say how many units the array has in each direction and which loop dimensions may be spread
over it. `memories` go from the array outwards; a memory of scope `pe` exists in every unit, one of scope `shared` once;
a memory that several operands name is shared by them. An operand bypasses the memories that do not name it. Reading
and writing a word cost the same. The last memory is unlimited.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One direction of the array and the loop dimensions that may be spread over it."""

    size: int
    dims: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """One memory: capacity in words (None: unlimited), operands it holds, energy of one word read or written."""

    name: str
    words: int | None
    operands: tuple[str, ...]
    energy: float
    scope: str = "shared"


@dataclass(frozen=True)
class Architecture:
    """An accelerator. `word_bits` only serves tools that think in bits."""

    name: str
    word_bits: int
    mac_energy: float
    rows: Axis
    columns: Axis
    memories: tuple[Memory, ...]

    def holding(self, operand: str) -> list[Memory]:
        """Memories that hold an operand, inner to outer."""
        return [memory for memory in self.memories if operand in memory.operands]


EYERISS_LIKE = Architecture(
    name="eyeriss-like",
    word_bits=16,
    mac_energy=1.0,
    rows=Axis(12, ("FY", "C", "K", "G")),
    columns=Axis(14, ("OY", "K", "G")),
    memories=(
        Memory("i_register", 12, ("I",), 1.0, "pe"),
        Memory("w_register", 224, ("W",), 1.0, "pe"),
        Memory("o_register", 24, ("O",), 1.0, "pe"),
        Memory("buffer", 51200, ("I", "O"), 6.0),
        Memory("dram", None, ("I", "W", "O"), 200.0),
    ),
)

SYSTOLIC = Architecture(
    name="systolic-ws-64x64",
    word_bits=8,
    mac_energy=1.0,
    rows=Axis(64, ("C", "FY", "FX")),
    columns=Axis(64, ("K", "G")),
    memories=(
        Memory("w_register", 1, ("W",), 0.1, "pe"),
        Memory("buffer", 524288, ("I", "O"), 6.0),
        Memory("w_buffer", 65536, ("W",), 3.0),
        Memory("dram", None, ("I", "W", "O"), 200.0),
    ),
)

ARCHITECTURES = {architecture.name: architecture for architecture in (EYERISS_LIKE, SYSTOLIC)}
