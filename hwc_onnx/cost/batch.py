"""One layer at many settings at once: arrays of densities for each combination of widths.

The same arithmetic as `query` for single settings, in numpy; `tests/cost/test_batch.py` holds the two together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import Format, Operand
from hwc_onnx.cost.formats import pattern_bits
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.passes import Floats, Ints
from hwc_onnx.cost.query import LayerQuery
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.widths import FINISHED, INPUT, WEIGHT
from hwc_onnx.graph.zero_pattern import Pattern, share_of


class Densities(NamedTuple):
    """Shares of elements that are not zero, [s] each: inputs, weights (or second operand), stored outputs."""

    activation: Floats
    weight: Floats
    output: Floats


def energies(
    query: LayerQuery, table: MappingTable, setting: LayerSetting, place: Place, densities: Densities
) -> Floats:  # fmt: skip
    """Energy of the layer at the widths of `setting` and each of the densities, best mapping for each, [s].

    Infinite where no mapping fits.
    """
    table = query.reduced(table, setting)
    fitting = query.fits.rows(table, setting, place)
    count = len(densities.activation)
    if fitting.rows.size == 0:
        return np.full(count, math.inf)
    wiring, widths = query.wiring(setting, place), _widths(query, setting, densities)
    happens = _probabilities(query, setting, densities)
    found = fitting.columns @ (wiring.energy @ widths + wiring.unpack[:, None])
    fixed = query.fixed(setting)
    if fixed.psum_pj:
        together = np.broadcast_to(query.together(table, fitting.rows, setting), fitting.rows.shape)[:, None]
        residual = query.residual("psum")
        done = residual + (1.0 - residual) * (1.0 - (1.0 - happens["psum"]) ** together)
        found += setting.dims.macs / together * fixed.psum_pj * done
    if query.profile.static is not None:
        found += _cycles(query, table, fitting.rows, setting, place, widths, happens) * query.leakage_pj_per_cycle
    best: Floats = found.min(axis=0) + _fixed(query, setting, happens)
    return best


def _widths(query: LayerQuery, setting: LayerSetting, densities: Densities) -> Floats:
    """Bits per word of every kind at every memory, [kinds * memories, s]; only those of stored tensors have zeros."""
    memories, shares = len(query.profile.memories), query.widths.stored_share(setting)
    rows = np.repeat(query.widths.vector(setting)[:, None], len(densities.activation), axis=1)
    kinds: tuple[tuple[int, Operand, Floats, Pattern | None, float], ...] = (
        (INPUT, "I", densities.activation, None, 1.0),
        (WEIGHT, "W", densities.weight, setting.nm, 1.0),
        (FINISHED, "O", densities.output, None, shares),
    )
    for kind, operand, density, pattern, share in kinds:
        for memory, (bits, storage) in enumerate(query.widths.storages(operand, setting)):
            if storage is not None:
                rows[kind * memories + memory] = share * element_bits_of(bits, density, storage, pattern, setting.dims.C)
    return rows


def element_bits_of(
    bits: int, density: Floats, storage: Format | None, pattern: Pattern | None, channels: int
) -> Floats:
    """`formats.element_bits` for many densities, [s]."""
    dense = np.full(len(density), float(bits))
    if storage is None:
        return dense
    if storage.kind == "bitmask":
        packed = 1.0 + density * bits
    elif storage.kind == "csc":
        packed = density * (bits + storage.run_bits)
    elif storage.kind == "rlc":
        longest = 1 << storage.run_bits
        filled = 1.0 - (1.0 - density) ** longest
        share = np.divide(density, filled, out=np.full(len(density), 1.0 / longest), where=density > 0.0)
        packed = share * (bits + storage.run_bits + 1 / 3)
    else:
        fixed = pattern_bits(bits, storage.kind, pattern, channels)
        if fixed is None:
            return dense
        packed = np.full(len(density), fixed)
    return np.minimum(packed, dense) if storage.selectable else packed


def _probabilities(query: LayerQuery, setting: LayerSetting, densities: Densities) -> dict[str, Floats]:
    """`LayerQuery.probabilities` for many densities."""
    by_operand = {"I": densities.activation, "W": densities.weight}
    happens = {}
    for action, seen in query.watched(setting.nm).items():
        share = share_of(setting.nm, setting.dims.C) if seen.listed and setting.nm is not None else 1.0
        left, gated = np.full(len(densities.activation), share), np.ones(len(densities.activation))
        for operand in seen.skipped:
            left = left * by_operand[operand]
        for operand in seen.gated:
            gated = gated * by_operand[operand]
        residual = 0.0 if action == "psum" or not seen.gated else query.residual(action)
        happens[action] = left * (residual + (1.0 - residual) * gated)
    return happens


def _fixed(query: LayerQuery, setting: LayerSetting, happens: dict[str, Floats]) -> Floats:
    """What does not depend on the mapping, [s]."""
    macs, gate = setting.dims.macs, query.profile.sparsity.gate
    energy = happens["mac"] * (macs * query.mac_facts(setting)[0])
    for operand, memory, read_pj in query.operand_registers:
        flags = gate.flag_bits if gate is not None and operand in gate.operands else 0
        width = query.widths.word(memory, operand, setting)
        energy = energy + macs * (happens[f"read_{operand}"] * width + flags) * read_pj
    return energy + query.fixed(setting).parts["dram"]


def _cycles(
    query: LayerQuery,
    table: MappingTable,
    rows: Ints,
    setting: LayerSetting,
    place: Place,
    widths: Floats,
    happens: dict[str, Floats],
) -> Floats:
    """Cycles of each row at each setting, [r, s]."""
    skip, left = query.profile.sparsity.skip, happens["cycle"]
    slowdown = np.minimum(1.0, np.where(left < 1.0, left * (skip.imbalance if skip is not None else 1.0), left))
    speed = np.broadcast_to(query.speed(table, rows, setting), rows.shape)
    cycles: Floats = (table.cycles[rows] / speed)[:, None] * slowdown
    moved = np.tensordot(query.wiring(setting, place).traffic, widths, axes=1)
    for memory, limited in enumerate(query.profile.memories):
        if limited.bits_per_cycle is not None:
            cycles = np.maximum(cycles, table.columns[rows] @ moved[memory] / limited.bits_per_cycle)
    return cycles
