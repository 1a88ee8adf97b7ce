"""The energy of a node as a list of products, each with the field of the accelerator file that its constant is from.

The counts are those of the mapping table, the constants those of the file; nothing is taken from the matrices of
`moves`, so that the sum of the terms is a second way to the same energy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import AcceleratorProfile, Operand
from hwc_onnx.cost.facts import Stored
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.laws import mac_energy, stored_bits
from hwc_onnx.cost.mapping import MappingTable
from hwc_onnx.cost.query import CHANNEL_BITS, LayerQuery
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.term_words import law_words, psum_words, share_words, width_words
from hwc_onnx.cost.types import COMPONENTS, Term
from hwc_onnx.cost.widths import FINISHED, INPUT, PLAIN_INPUT, PLAIN_WEIGHT, SUM, WEIGHT, format_at

INPUTS: tuple[Operand, ...] = ("I", "W")


class Mapped(NamedTuple):
    """A layer at a setting, with one row of its mapping table."""

    query: LayerQuery
    table: MappingTable
    row: int
    setting: LayerSetting
    place: Place


def layer_terms(layer: Mapped) -> list[Term]:
    """Terms of a mapped layer; they add up to `LayerQuery.parts`."""
    found = [*_arithmetic(layer), *_registers(layer), *_moves(layer), *_hops(layer), *_unpacking(layer)]
    cycles = float(layer.query.cycles(layer.table, np.array([layer.row]), layer.setting, layer.place)[0])
    return found + leakage_terms(layer.query, cycles)


def ordered(terms: list[Term]) -> list[Term]:
    """The terms that cost anything, by component."""
    return sorted((term for term in terms if term.energy), key=lambda term: COMPONENTS.index(term.component))


def work_terms(profile: AcceleratorProfile, what: str, ops: float, lookups: float) -> list[Term]:
    """Terms of element operations and table look-ups; `what` names the operations."""
    unit = profile.vector
    return [
        Term("vector", what, ops, "operations", 1.0, None, unit.op_pj, "vector.op_pj"),
        Term("vector", "table look-ups", lookups, "look-ups", 1.0, None, unit.lookup_pj, "vector.lookup_pj"),
    ]


def stored_terms(profile: AcceleratorProfile, name: str, tensor: Stored, stays: bool, write: bool) -> list[Term]:
    """Terms of what the post-processing unit reads or writes of a tensor; they add up to `StepEnergies.moved`."""
    dram, home = profile.memories[-1], profile.home
    found = []
    for memory in (home, dram):
        if memory is None or (memory is dram and stays) or (memory is home and tensor.table):
            continue
        pack, storage = (memory.pack, memory.formats.get("A"))
        why: tuple[str, ...] = ()
        if tensor.table:
            pack, storage = (memory.granules(weights=True), memory.formats.get("W"))
            why = ("of a table of weights, only the rows that are asked for",)
        stored = stored_bits(tensor.bits, pack)
        bits = element_bits(stored, tensor.density, storage)
        why += width_words(tensor.bits, stored, tensor.density, storage, None)
        for direction in ("read", "write"):
            if (direction == "write") == write or (memory is home and not stays):
                constant = memory.write_pj_per_bit if direction == "write" else memory.read_pj_per_bit
                field = f"memories.{memory.name}.{direction}_pj_per_bit"
                component = "dram" if memory is dram else memory.kind
                what = f"{memory.name}: {direction} {name}"
                found.append(Term(component, what, float(tensor.words), "words", 1.0, bits, constant, field, why))
    return found


def leakage_terms(query: LayerQuery, cycles: float) -> list[Term]:
    """Static energy of some cycles, where the file states it."""
    profile = query.profile
    if profile.static is None:
        return []
    why: tuple[str, ...] = (f"{profile.static.power_mw:.6g} mW in each cycle of {1e3 / profile.frequency_mhz:.6g} ns",)
    if profile.unit != "pJ" and profile.reference_mac_pj is not None:
        why += (f"{profile.reference_mac_pj:.6g} pJ are one reference MAC",)
    return [
        Term("leakage", "static power", cycles, "cycles", 1.0, None, query.leakage_pj_per_cycle, "static.power_mw", why)
    ]


def _arithmetic(layer: Mapped) -> Iterator[Term]:
    profile, setting = layer.query.profile, layer.setting
    mac, widths = profile.mac, (setting.activation_bits, setting.weight_bits)
    relative = mac_energy(mac.model_copy(update={"energy_pj": 1.0}), *widths)
    happens = layer.query.probabilities(setting)["mac"]
    why = (*law_words(mac, *widths, relative), *share_words(layer.query, setting, "mac"))
    yield Term(
        "mac",
        "multiply-accumulate",
        float(setting.dims.macs),
        "MACs",
        relative * happens,
        None,
        mac.energy_pj,
        "mac.energy_pj",
        why,
    )


def _registers(layer: Mapped) -> Iterator[Term]:
    """What each MAC reads and writes in its PE."""
    query, setting = layer.query, layer.setting
    profile, hierarchy = query.profile, query.hierarchy
    macs, happens, gate = float(setting.dims.macs), query.probabilities(setting), profile.sparsity.gate
    for operand in INPUTS:
        memory = hierarchy.registers(operand)
        if memory is None:
            continue
        index = profile.memories.index(memory)
        field, action = f"memories.{memory.name}.read_pj_per_bit", f"read_{operand}"
        asked = setting.weight_bits if operand == "W" else setting.activation_bits
        stored = _plain(layer, index, operand)
        bits = query.widths.word(index, operand, setting)
        why = width_words(asked, stored, 1.0, None, None)
        if bits > stored:
            why += (f"{stored} bits and {bits - stored} of the run before them",)
        yield Term(
            "register",
            f"{memory.name}: read {operand} for MACs",
            macs,
            "words",
            happens[action],
            float(bits),
            memory.read_pj_per_bit,
            field,
            why + share_words(query, setting, action),
        )
        if gate is not None and operand in gate.operands:
            what = f"{memory.name}: read zero flags of {operand}"
            yield Term("register", what, macs, "words", 1.0, float(gate.flag_bits), memory.read_pj_per_bit, field)
    psums = hierarchy.registers("O")
    if psums is None:
        return
    bits = hierarchy.word_bits(profile.memories.index(psums), "O", 0)
    together = float(np.min(query.together(layer.table, np.array([layer.row]), setting)))
    residual = query.residual("psum")
    factor = residual + (1.0 - residual) * (1.0 - (1.0 - happens["psum"]) ** together)
    why = psum_words(query, setting, together)
    for direction, constant in (("read", psums.read_pj_per_bit), ("write", psums.write_pj_per_bit)):
        field = f"memories.{psums.name}.{direction}_pj_per_bit"
        what = f"{psums.name}: {direction} sums of MACs"
        yield Term("register", what, macs / together, "words", factor, float(bits), constant, field, why)


def _moves(layer: Mapped) -> Iterator[Term]:
    """Words between the memories, and the bias and scale of each channel."""
    query, setting = layer.query, layer.setting
    profile, columns = query.profile, query.hierarchy.columns
    moves = query.wiring(setting, layer.place).flow.moves
    counts: dict[tuple[int, int, bool, int], float] = {}
    sources = {}
    for column, memory, write, factor, kind in moves:
        index = query.hierarchy.boundaries.index(columns[column][0])
        key = (index, memory, write, kind)
        counts[key] = counts.get(key, 0.0) + factor * float(layer.table.columns[layer.row, column])
        if not write and kind in (INPUT, WEIGHT):
            sources[index] = memory
    share = query.widths.stored_share(setting)
    for (number, memory, write, kind), count in counts.items():
        boundary = query.hierarchy.boundaries[number]
        m, direction = profile.memories[memory], "write" if write else "read"
        parent = sources.get(number, boundary.parent)
        other = parent if memory == boundary.child else boundary.child
        words = "sums" if kind == SUM else boundary.operand
        what = f"{m.name}: {direction} {words} {'from' if write else 'for'} "
        what += profile.memories[other].name if other >= 0 else "the array"
        count *= share if kind == FINISHED else 1.0
        bits, why = _width(layer, memory, kind)
        constant = m.write_pj_per_bit if write else m.read_pj_per_bit
        yield Term(m.kind, what, count, "words", 1.0, bits, constant, f"memories.{m.name}.{direction}_pj_per_bit", why)
    dram = profile.memories[-1]
    yield Term(
        "dram",
        f"{dram.name}: read bias and scale",
        float(setting.channels),
        "channels",
        1.0,
        float(CHANNEL_BITS),
        dram.read_pj_per_bit,
        f"memories.{dram.name}.read_pj_per_bit",
    )


def _hops(layer: Mapped) -> Iterator[Term]:
    """Words that cross the array's network."""
    query = layer.query
    array = query.profile.array
    for column, memory, kind, without in query.wiring(layer.setting, layer.place).flow.hops:
        operand = query.hierarchy.columns[column][0].operand
        hops = array.hops.get(operand, 1.0)
        bits, why = _width(layer, memory, kind)
        what = "sums out of the PEs" if operand == "O" else f"{operand} to the PEs"
        words = float(layer.table.columns[layer.row, column])
        if without is not None:
            what, words = "sums back to the PEs", words - float(layer.table.columns[layer.row, without])
        why += () if hops == 1.0 else (f"{hops:.6g} hops for each word",)
        yield Term("noc", what, words, "words", hops, bits, array.hop_pj_per_bit, "array.hop_pj_per_bit", why)


def _unpacking(layer: Mapped) -> Iterator[Term]:
    """Words that leave a compressed stream."""
    query, constant = layer.query, layer.query.profile.sparsity.decode_pj
    for column in query.wiring(layer.setting, layer.place).flow.unpacked:
        boundary = query.hierarchy.columns[column][0]
        what = f"unpack {boundary.operand} of {query.profile.memories[boundary.parent].name}"
        words = float(layer.table.columns[layer.row, column])
        yield Term("decode", what, words, "words", 1.0, None, constant, "sparsity.decode_pj")


def _width(layer: Mapped, memory: int, kind: int) -> tuple[float, tuple[str, ...]]:
    """Bits of one word of a kind at a memory, and how they come about."""
    query, setting = layer.query, layer.setting
    memories = query.profile.memories
    if kind == SUM:
        asked = query.profile.mac.accumulator_bits
        bits = query.hierarchy.word_bits(memory, "O", 0)
        return float(bits), (
            f"sums are {asked} bits wide, as the accumulator",
            *width_words(asked, bits, 1.0, None, None),
        )
    operand: Operand = "O" if kind == FINISHED else "I" if kind in (INPUT, PLAIN_INPUT) else "W"
    asked, density = {
        "I": (setting.activation_bits, setting.activation_density),
        "W": (setting.weight_bits, setting.weight_density),
        "O": (setting.out_bits, setting.out_density),
    }[operand]
    stored = stored_bits(asked, memories[memory].pack) if operand == "O" else _plain(layer, memory, operand)
    if kind in (PLAIN_INPUT, PLAIN_WEIGHT):
        return float(stored), width_words(asked, stored, 1.0, None, None)
    storage = format_at(query.hierarchy, memory, operand, operand == "W" and setting.weighted)
    pattern = setting.nm if operand == "W" else None
    channels = setting.dims.C
    return (
        element_bits(stored, density, storage, pattern, channels),
        width_words(asked, stored, density, storage, pattern, channels),
    )


def _plain(layer: Mapped, memory: int, operand: Operand) -> int:
    """Bits that a memory stores a word of an operand at, before any format."""
    kind = PLAIN_WEIGHT if operand == "W" else PLAIN_INPUT
    return int(layer.query.widths.vector(layer.setting)[kind * len(layer.query.profile.memories) + memory])
