"""Energy of one layer at one setting: the mapping table times the energies of a word, best mapping kept.

Fixed parts do not depend on the mapping: the multiply-accumulates themselves, their register reads, bias and scale of
each channel. Zeros enter as probabilities: an action that is gated happens with the product of the densities of the
operands that are watched (independent, as in Sparseloop, MICRO 2022, section 4), and a partial sum that collects N
products at once is spared only if all N are zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hwc_onnx.cost.accelerator import Gate, Operand
from hwc_onnx.cost.access import Floats, Ints
from hwc_onnx.cost.fits import Fits
from hwc_onnx.cost.hierarchy import Hierarchy
from hwc_onnx.cost.lanes import products_together
from hwc_onnx.cost.laws import leakage_pj_per_cycle, mac_energy, mac_lanes
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.moves import Wiring, wire
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.setting import FREE_STEPS, LayerSetting, Place
from hwc_onnx.cost.types import COMPONENTS
from hwc_onnx.cost.watched import Watched, watched
from hwc_onnx.cost.widths import Widths
from hwc_onnx.graph.zero_pattern import Pattern, name_of, share_of

CHANNEL_BITS = 64
"""Bias and requantization scale of one output channel, 32 bits each, read from DRAM once."""


@dataclass(frozen=True)
class Best:
    """The best mapping of a layer at a setting: its row in the table and total energy."""

    row: int
    energy: float


@dataclass(frozen=True)
class Fixed:
    """What does not depend on the mapping: energy by component, energy of one partial-sum access and how often it
    happens, and the share of cycles that skipping leaves."""

    parts: dict[str, float]
    psum_pj: float
    psum_share: float
    slowdown: float


class LayerQuery:
    """Answers for one profile; remembers what depends on the profile alone."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.profile = hierarchy.profile
        self.widths = Widths(hierarchy)
        self.fits = Fits(hierarchy)
        self._wirings: dict[tuple[bool, Place], Wiring] = {}
        self._mac: dict[tuple[int, int], tuple[float, float]] = {}
        self._watched: dict[str | None, dict[str, Watched]] = {}
        self._latest: tuple[LayerSetting | None, Floats, Fixed] = (None, np.empty(0), Fixed({}, 0.0, 0.0, 1.0))

    def reduced(self, table: MappingTable, setting: LayerSetting) -> MappingTable:
        """The table at the setting's widths: lanes of a PE that reduce send one sum to accumulators outside the PEs."""
        if self._edge_sums is None:
            return table
        lanes = self.mac_facts(setting)[1]
        if lanes <= 1.0:
            return table
        made = table.reduced.get(lanes)
        if made is None:
            columns, edge = table.columns.copy(), self._edge_sums
            fresh = columns[:, edge + 2]
            together = products_together(Nest(setting.dims).sizes, table.whole, lanes)
            for column in (edge, edge + 1):
                columns[:, column] = np.maximum(columns[:, column] / together, fresh)
            made = table.reduced[lanes] = replace(table, columns=columns)
            made.reduced[lanes] = made
        return made

    def best(self, table: MappingTable, setting: LayerSetting, place: Place) -> Best | None:
        """The cheapest mapping that fits, or None when none fits in the free space."""
        if self._edge_sums is not None:
            table = self.reduced(table, setting)
        fitting = self.fits.rows(table, setting, place)
        if fitting.rows.size == 0:
            return None
        if self._latest[0] is not setting:
            # a setting is asked for at several places in a row
            self._latest = (setting, self.widths.vector(setting), self.fixed(setting))
        _, widths, fixed = self._latest
        energy = fitting.columns @ self.wiring(setting, place).word_energy(widths)
        energy += self._psum(table, fitting.rows, setting, fixed)
        if self.profile.static is not None:
            energy += self.cycles(table, fitting.rows, setting, place) * self.leakage_pj_per_cycle
        best = int(energy.argmin())
        return Best(int(fitting.rows[best]), float(energy[best]) + sum(fixed.parts.values()))

    def parts(self, table: MappingTable, setting: LayerSetting, place: Place, row: int) -> dict[str, float]:
        """Energy of a mapping by component (keys of COMPONENTS)."""
        table = self.reduced(table, setting)
        fixed = self.fixed(setting)
        energies = self.wiring(setting, place).word_energies(self.widths.vector(setting))
        found = dict(zip(COMPONENTS, (table.columns[row] @ energies).tolist(), strict=True))
        for name, energy in fixed.parts.items():
            found[name] += energy
        rows = np.array([row])
        found["register"] += float(np.min(self._psum(table, rows, setting, fixed)))
        found["leakage"] += float(self.cycles(table, rows, setting, place)[0]) * self.leakage_pj_per_cycle
        return found

    def wiring(self, setting: LayerSetting, place: Place) -> Wiring:
        """How the layer's words move."""
        key = (setting.weighted, place._replace(free=FREE_STEPS))
        found = self._wirings.get(key)
        if found is None:
            found = self._wirings[key] = wire(self.hierarchy, *key)
        return found

    def fixed(self, setting: LayerSetting) -> Fixed:
        """What the layer costs whatever its mapping."""
        happens = self.probabilities(setting)
        macs = setting.dims.macs
        gate = self.profile.sparsity.gate
        register = 0.0
        for operand, memory, read_pj in self.operand_registers:
            flags = gate.flag_bits if gate is not None and operand in gate.operands else 0
            width = self.widths.word(memory, operand, setting)
            register += macs * (happens[f"read_{operand}"] * width + flags) * read_pj
        parts = {
            "mac": macs * happens["mac"] * self.mac_facts(setting)[0],
            "register": register,
            "dram": setting.channels * CHANNEL_BITS * self.profile.memories[-1].read_pj_per_bit,
        }
        skip = self.profile.sparsity.skip
        slowdown = happens["cycle"] * (skip.imbalance if skip is not None and happens["cycle"] < 1.0 else 1.0)
        return Fixed(parts, self._psum_pj, happens["psum"], min(1.0, slowdown))

    def cycles(self, table: MappingTable, rows: Ints, setting: LayerSetting, place: Place) -> Floats:
        """Cycles of each row: the slower of the array and each memory's bandwidth, [r]."""
        table = self.reduced(table, setting)
        cycles = self.busy(table, rows, setting)
        moved = self.wiring(setting, place).traffic @ self.widths.vector(setting)
        for memory, limited in enumerate(self.profile.memories):
            if limited.bits_per_cycle is not None:
                cycles = np.maximum(cycles, table.columns[rows] @ moved[memory] / limited.bits_per_cycle)
        return cycles

    def transfers(self, table: MappingTable, row: int, setting: LayerSetting, place: Place) -> dict[str, float]:
        """Cycles that each memory of limited bandwidth needs for its words, by name."""
        table = self.reduced(table, setting)
        moved = self.wiring(setting, place).traffic @ self.widths.vector(setting)
        return {
            limited.name: float(table.columns[row] @ moved[memory]) / limited.bits_per_cycle
            for memory, limited in enumerate(self.profile.memories)
            if limited.bits_per_cycle is not None
        }

    def busy(self, table: MappingTable, rows: Ints, setting: LayerSetting) -> Floats:
        """Cycles for which the array multiplies, [r]."""
        cycles: Floats = table.cycles[rows] * self.fixed(setting).slowdown / self.speed(table, rows, setting)
        return cycles

    @cached_property
    def leakage_pj_per_cycle(self) -> float:
        """Static energy of one cycle, in the profile's unit."""
        return leakage_pj_per_cycle(self.profile)

    def together(self, table: MappingTable, rows: Ints, setting: LayerSetting) -> Floats | float:
        """Products that meet one partial sum at a time, on average: lanes that reduce, ragged ends counted, [r] or one for all."""
        lanes = self.mac_facts(setting)[1]
        if not self.profile.mac.lanes_reduce or lanes <= 1.0:
            return 1.0
        every = table.together.get(lanes)
        if every is None:
            every = table.together[lanes] = products_together(Nest(setting.dims).sizes, table.whole, lanes)
        found: Floats = every[rows]
        return found

    def speed(self, table: MappingTable, rows: Ints, setting: LayerSetting) -> Floats | float:
        """MACs that one PE finishes per cycle, [r]; lanes that reduce cannot be used beyond what there is to add."""
        lanes = self.mac_facts(setting)[1]
        if self.profile.mac.lanes_reduce and lanes > 1.0:
            steps: Floats = table.reduction[rows]
            return steps / np.ceil(steps / lanes)
        return lanes

    def mac_facts(self, setting: LayerSetting) -> tuple[float, float]:
        """Energy of one MAC that happens, and MACs per cycle of one PE."""
        key = (setting.activation_bits, setting.weight_bits)
        found = self._mac.get(key)
        if found is None:
            found = self._mac[key] = mac_energy(self.profile.mac, *key), mac_lanes(self.profile.mac, *key)
        return found

    def _psum(self, table: MappingTable, rows: Ints, setting: LayerSetting, fixed: Fixed) -> Floats | float:
        """Energy of reading and writing partial sums in the PEs while they accumulate, [r] or the same for all."""
        if fixed.psum_pj == 0.0:
            return 0.0
        together = self.together(table, rows, setting)
        residual = self.residual("psum")
        happens = 1.0 - (1.0 - fixed.psum_share) ** together
        happens = residual + (1.0 - residual) * happens
        return setting.dims.macs / together * happens * fixed.psum_pj

    def probabilities(self, setting: LayerSetting, residuals: bool = True) -> dict[str, float]:
        """How often each action happens; "cycle" is the time left by skipping.

        With `residuals` an action that is gated counts as the share of its energy that it still costs ("psum" never does).
        """
        densities: dict[str, float] = {"I": setting.activation_density, "W": setting.weight_density}
        happens = {}
        for action, seen in self.watched(setting.nm).items():
            left, gated = share_of(setting.nm, setting.dims.C) if seen.listed and setting.nm is not None else 1.0, 1.0
            for operand in seen.skipped:
                left *= densities[operand]
            for operand in seen.gated:
                gated *= densities[operand]
            residual = 0.0 if action == "psum" or not residuals or not seen.gated else self.residual(action)
            happens[action] = left * (residual + (1.0 - residual) * gated)
        return happens

    def watched(self, nm: Pattern | None) -> dict[str, Watched]:
        """Which zeros spare which action, with weights of this pattern."""
        name = None if nm is None else name_of(nm)
        found = self._watched.get(name)
        if found is None:
            found = self._watched[name] = watched(self.profile, name)
        return found

    def residual(self, action: str) -> float:
        """Share of its energy that an action costs when it is gated."""
        gate: Gate | None = self.profile.sparsity.gate
        return gate.residual if gate is not None and action in gate.saves else 0.0

    @cached_property
    def _edge_sums(self) -> int | None:
        """First column of the sums that leave the PEs, where lanes reduce and no PE holds sums; None otherwise."""
        if not self.profile.mac.lanes_reduce or self.hierarchy.registers("O") is not None:
            return None
        first: int = self.hierarchy.slice_of("O").start
        return first

    @cached_property
    def operand_registers(self) -> list[tuple[Operand, int, float]]:
        """Operands that each MAC reads in the PE: operand, memory, energy of one bit."""
        found: list[tuple[Operand, int, float]] = []
        operands: tuple[Operand, ...] = ("I", "W")
        for operand in operands:
            memory = self.hierarchy.registers(operand)
            if memory is not None:
                found.append((operand, self.profile.memories.index(memory), memory.read_pj_per_bit))
        return found

    @cached_property
    def _psum_pj(self) -> float:
        """Energy of reading and writing one partial sum in the PE, nothing where PEs hold none."""
        psum = self.hierarchy.registers("O")
        if psum is None:
            return 0.0
        bits = self.hierarchy.word_bits(self.profile.memories.index(psum), "O", 0)
        return bits * (psum.read_pj_per_bit + psum.write_pj_per_bit)
