"""The settings a mapping table is made for: storable widths, densities, tensors that stay or travel.

Energies of a word separate by operand, so a few vectors per operand describe all combinations. They depend on the
profile only and serve every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.access import Floats
from hwc_onnx.cost.counting import Counter
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.lanes import products_together
from hwc_onnx.cost.laws import leakage_pj_per_cycle, mac_lanes
from hwc_onnx.cost.moves import wire
from hwc_onnx.cost.operands import OPERANDS
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.widths import Widths
from hwc_onnx.graph.loop_dims import LoopDims

WIDTHS = (2, 4, 8, 16)
"""Operand widths to search at; those that no memory tells apart are searched once."""

DENSITIES = (1.0, 0.2)
"""Shares of non-zeros to search at: dense, and so sparse that compressed streams count little."""


@dataclass(frozen=True)
class Scenarios:
    """`widths` to search at, `densities` (one where no memory compresses), and the energy of one word in each of an
    operand's columns by (operand, width, density, stays).
    """

    widths: tuple[int, ...]
    densities: tuple[float, ...]
    energies: dict[tuple[Operand, int, float, bool], Floats]
    psum_pj: float
    lanes: dict[tuple[int, int], float]
    speed: dict[tuple[int, int], float]
    leakage_pj: float

    def besides(self, activation_bits: int, weight_bits: int, counter: Counter) -> Floats:
        """Energy that depends on the unroll alone, [n].

        Partial sums inside the PEs follow how many products a PE adds at once, static energy the cycles that the array
        multiplies (where a bandwidth limits, the query knows).
        """
        nests, lanes = counter.nests, self.lanes[activation_bits, weight_bits]
        macs = nests.nest.dims.macs
        energy: Floats = np.full(nests.count, macs * self.psum_pj)
        if self.psum_pj != 0.0 and lanes != 1.0:
            energy = (macs / products_together(nests.nest.sizes, nests.whole, lanes) * self.psum_pj)[nests.which]
        if self.leakage_pj:
            energy = energy + nests.cycles() / self.speed[activation_bits, weight_bits] * self.leakage_pj
        return energy


@lru_cache(maxsize=32)
def scenarios(hierarchy: Hierarchy) -> Scenarios:
    """Scenarios of a profile."""
    memories = hierarchy.profile.memories
    seen: dict[tuple[int, ...], int] = {}
    for bits in WIDTHS:
        granules = tuple(hierarchy.word_bits(i, "I", bits) for i, m in enumerate(memories) if m.kind != "dram")
        seen[granules] = bits
    densities = DENSITIES if any(memory.formats for memory in memories) else DENSITIES[:1]
    energies = {}
    widths = Widths(hierarchy)
    for bits in seen.values():
        for density in densities:
            for stays in (False, True):
                one = LayerSetting(LoopDims(), True, bits, bits, density, density, None, 1, bits, density, 0)
                weights = wire(hierarchy, True, Place(stays, False, stays)).word_energy(widths.vector(one))
                for operand in OPERANDS:
                    energies[operand, bits, density, stays] = weights[hierarchy.slice_of(operand)]
    psum = hierarchy.registers("O")
    psum_pj = 0.0
    if psum is not None:
        psum_pj = hierarchy.word_bits(memories.index(psum), "O", 0) * (psum.read_pj_per_bit + psum.write_pj_per_bit)
    mac = hierarchy.profile.mac
    speed = {(a, w): mac_lanes(mac, a, w) for a in seen.values() for w in seen.values()}
    lanes = {pair: max(1.0, lane) if mac.lanes_reduce else 1.0 for pair, lane in speed.items()}
    leakage = leakage_pj_per_cycle(hierarchy.profile)
    return Scenarios(tuple(seen.values()), densities, energies, psum_pj, lanes, speed, leakage)
