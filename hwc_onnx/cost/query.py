"""Energy of one layer at one setting: the mapping table times the energies of a word, best mapping kept.

Fixed parts do not depend on the mapping: the multiply-accumulates themselves, their register reads, bias and scale of
each channel. Zeros enter as probabilities: an action that is gated happens with the product of the densities of the
operands that are watched (independent, as in Sparseloop, MICRO 2022, section 4), and a partial sum that collects N
products at once is spared only if all N are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwc_onnx.cost.accelerator import Gate, Operand, Skip
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.counting import FULL_SPILL
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.laws import mac_energy, mac_lanes
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.moves import Flow, flow, word_at, word_energies
from hwc_onnx.cost.setting import FREE_STEPS, LayerSetting, Place
from hwc_onnx.cost.types import COMPONENTS

CHANNEL_BITS = 64
"""Bias and requantization scale of one output channel, 32 bits each, read from DRAM once."""


@dataclass(frozen=True)
class Best:
    """The best mapping of a layer at a setting: its row in the table, total energy and cycles."""

    row: int
    energy: float
    cycles: float


@dataclass(frozen=True)
class Fixed:
    """Energy by component that does not depend on the mapping, the energy of one partial-sum access, and the share of
    cycles that skipping leaves."""

    parts: dict[str, float]
    psum_pj: float
    slowdown: float


def products_together(reduction: Floats, lanes: float) -> Floats:
    """Mean number of products per partial-sum access when `lanes` at a time of `reduction` products are added first."""
    together: Floats = reduction / np.ceil(reduction / lanes)
    return together


class LayerQuery:
    """Answers for one profile; holds no results."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.profile = hierarchy.profile

    def best(self, table: MappingTable, setting: LayerSetting, place: Place) -> Best | None:
        """The cheapest mapping that fits, or None when none fits in the free space."""
        rows = self.fitting(table, setting, place)
        if rows.size == 0:
            return None
        moved = flow(self.hierarchy, setting, place)
        fixed = self.fixed(setting)
        energy = table.columns[rows] @ word_energies(self.hierarchy, moved).sum(axis=1)
        energy += self._psum(table, rows, setting, fixed)
        cycles = self.cycles(table, rows, setting, moved, fixed)
        if self.profile.static is not None:
            energy += cycles * self.leakage_pj_per_cycle
        best = int(energy.argmin())
        return Best(int(rows[best]), float(energy[best]) + sum(fixed.parts.values()), float(cycles[best]))

    def parts(self, table: MappingTable, setting: LayerSetting, place: Place, best: Best) -> dict[str, float]:
        """Energy of a mapping by component (keys of COMPONENTS)."""
        moved = flow(self.hierarchy, setting, place)
        fixed = self.fixed(setting)
        found = dict(
            zip(COMPONENTS, (table.columns[best.row] @ word_energies(self.hierarchy, moved)).tolist(), strict=True)
        )
        for name, energy in fixed.parts.items():
            found[name] += energy
        found["register"] += float(self._psum(table, np.array([best.row]), setting, fixed)[0])
        if self.profile.static is not None:
            found["leakage"] += best.cycles * self.leakage_pj_per_cycle
        return found

    def fitting(self, table: MappingTable, setting: LayerSetting, place: Place) -> Ints:
        """Rows whose tiles fit every memory, and the free part of the home memory."""
        room = np.zeros((len(table), len(self.profile.memories)))
        for column, (memory, operand) in enumerate(self.hierarchy.held):
            bits = setting.weight_bits if operand == "W" else setting.activation_bits
            if memory == self.hierarchy.home and operand == "I" and place.input_stays:
                continue
            room[:, memory] += table.needs[:, column] * self.hierarchy.room_bits(memory, operand, bits)
        limits = self._limits.copy()
        if self.hierarchy.home >= 0:
            limits[self.hierarchy.home] *= place.free / FREE_STEPS
        fits = (room <= limits).all(axis=1)
        if place.output_stays:
            fits &= table.columns[:, self._last_arriving] - table.columns[:, self._last_arriving + 1] <= FULL_SPILL
        return np.nonzero(fits)[0]

    def fixed(self, setting: LayerSetting) -> Fixed:
        """What the layer costs whatever its mapping."""
        mac, memories = self.profile.mac, self.profile.memories
        happens = self._probabilities(setting)
        macs = setting.dims.macs
        parts = {"mac": macs * happens["mac"] * mac_energy(mac, setting.activation_bits, setting.weight_bits)}
        register = 0.0
        gate = self.profile.sparsity.gate
        operands: tuple[Operand, ...] = ("I", "W")
        for operand in operands:
            memory = self.hierarchy.registers(operand)
            if memory is None:
                continue
            width = word_at(self.hierarchy, memories.index(memory), operand, setting)
            flags = gate.flag_bits if gate is not None and operand in gate.operands else 0
            register += macs * (happens[f"read_{operand}"] * width + flags) * memory.read_pj_per_bit
        parts["register"] = register
        psum = self.hierarchy.registers("O")
        width_pj = 0.0
        if psum is not None:
            width_pj = self.hierarchy.word_bits(memories.index(psum), "O", 0) * (
                psum.read_pj_per_bit + psum.write_pj_per_bit
            )
        dram = memories[-1]
        parts["dram"] = setting.channels * CHANNEL_BITS * dram.read_pj_per_bit
        skip = self.profile.sparsity.skip
        slowdown = happens["cycle"] * (skip.imbalance if skip is not None and happens["cycle"] < 1.0 else 1.0)
        return Fixed(parts, width_pj, min(1.0, slowdown))

    def cycles(
        self,
        table: MappingTable,
        rows: Ints,
        setting: LayerSetting,
        moved: Flow,
        fixed: Fixed,
    ) -> Floats:
        """Cycles of each row: the slower of the array and each memory's bandwidth, [r]."""
        cycles: Floats = table.cycles[rows] * fixed.slowdown / self.speed(table, rows, setting)
        for memory, bits in enumerate(self._traffic(moved)):
            limit = self.profile.memories[memory].bits_per_cycle
            if limit is not None:
                cycles = np.maximum(cycles, table.columns[rows] @ bits / limit)
        return cycles

    @cached_property
    def leakage_pj_per_cycle(self) -> float:
        """Static energy of one cycle."""
        static = self.profile.static
        return 0.0 if static is None else static.power_mw * 1e-3 / (self.profile.frequency_mhz * 1e6) * 1e12

    def together(self, table: MappingTable, rows: Ints, setting: LayerSetting) -> Floats:
        """Products that meet one partial sum at a time, on average: lanes that reduce, ragged ends counted, [r]."""
        lanes = mac_lanes(self.profile.mac, setting.activation_bits, setting.weight_bits)
        if not self.profile.mac.lanes_reduce or lanes <= 1.0:
            return np.ones(len(rows))
        return products_together(table.reduction[rows], lanes)

    def speed(self, table: MappingTable, rows: Ints, setting: LayerSetting) -> Floats:
        """MACs that one PE finishes per cycle, [r]; lanes that reduce cannot be used beyond what there is to add."""
        lanes = mac_lanes(self.profile.mac, setting.activation_bits, setting.weight_bits)
        if self.profile.mac.lanes_reduce and lanes > 1.0:
            return products_together(table.reduction[rows], lanes)
        return np.full(len(rows), lanes)

    def _psum(self, table: MappingTable, rows: Ints, setting: LayerSetting, fixed: Fixed) -> Floats:
        """Energy of reading and writing partial sums in the PEs while they accumulate, [r]."""
        if fixed.psum_pj == 0.0:
            return np.zeros(len(rows))
        together = self.together(table, rows, setting)
        once = self._probabilities(setting)["psum"]
        residual = self._residual("psum")
        happens = 1.0 - (1.0 - once) ** together
        happens = residual + (1.0 - residual) * happens
        energy: Floats = setting.dims.macs / together * happens * fixed.psum_pj
        return energy

    def _probabilities(self, setting: LayerSetting) -> dict[str, float]:
        """How often each action happens, residual costs included except for "psum"; "cycle" is the time left by skipping."""
        densities = {"I": setting.activation_density, "W": setting.weight_density}
        happens = {"mac": 1.0, "read_I": 1.0, "read_W": 1.0, "psum": 1.0, "cycle": 1.0}
        features: tuple[Gate | Skip | None, ...] = (self.profile.sparsity.gate, self.profile.sparsity.skip)
        for feature in features:
            if feature is None:
                continue
            share = float(np.prod([densities[operand] for operand in feature.operands]))
            for action in feature.saves:
                residual = 0.0 if action == "psum" else self._residual(action)
                happens[action] = min(happens[action], residual + (1.0 - residual) * share)
            if isinstance(feature, Skip):
                happens["cycle"] = share
        if setting.nm is not None and f"{setting.nm[0]}:{setting.nm[1]}" in self.profile.sparsity.patterns:
            share = setting.nm[0] / setting.nm[1]
            for name in happens:
                happens[name] = min(happens[name], share)
        return happens

    def _residual(self, action: str) -> float:
        gate: Gate | None = self.profile.sparsity.gate
        return gate.residual if gate is not None and action in gate.saves else 0.0

    def _traffic(self, moved: Flow) -> Floats:
        """Bits that one word of each column moves at each memory, [memories, c]."""
        bits_moved = np.zeros((len(self.profile.memories), len(self.hierarchy.columns)))
        for column, memory, _, factor, bits in moved.moves:
            bits_moved[memory, column] += factor * bits
        return bits_moved

    @cached_property
    def _limits(self) -> Floats:
        return np.array([self.hierarchy.capacity_bits(i) for i in range(len(self.profile.memories))])

    @cached_property
    def _last_arriving(self) -> int:
        return len(self.hierarchy.columns) - 2
