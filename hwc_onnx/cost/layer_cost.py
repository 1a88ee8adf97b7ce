"""The full account of one mapped layer: energy by component with its terms, accesses, mapping, cycles, utilisation."""

from __future__ import annotations

from math import prod

import numpy as np

from hwc_onnx.cost.accelerator import AcceleratorProfile, Operand
from hwc_onnx.cost.laws import mac_lanes
from hwc_onnx.cost.ledger import Ledger
from hwc_onnx.cost.operands import DIMS, Nest
from hwc_onnx.cost.placement import tiles
from hwc_onnx.cost.terms import Mapped, layer_terms, ordered
from hwc_onnx.cost.types import Accumulator, NodeCost
from hwc_onnx.cost.widths import FINISHED


def mapped_cost(layer: Mapped, ledger: Ledger, key: str, op_type: str, accumulator: Accumulator | None) -> NodeCost:
    """The cost of a layer on one mapping, with what `ledger` holds already."""
    query, setting = layer.query, layer.setting
    ledger.add(query.parts(layer.table, setting, layer.place, layer.row), layer_terms(layer))
    _count_accesses(layer, ledger)
    cycles = float(query.cycles(layer.table, np.array([layer.row]), setting, layer.place)[0])
    return NodeCost(
        key=key,
        op_type=op_type,
        macs=setting.dims.macs,
        energy=ledger.parts,
        cycles=cycles,
        latency_s=seconds(query.profile, cycles),
        method="mapped",
        accesses=ledger.accesses,
        mapping=_mapping(layer),
        utilisation=_utilisation(layer, cycles),
        bound_by=_bound_by(layer, cycles),
        terms=tuple(ordered(ledger.terms)),
        accumulator=accumulator,
    )


def seconds(profile: AcceleratorProfile, cycles: float) -> float:
    """Duration of `cycles`."""
    return cycles / (profile.frequency_mhz * 1e6)


def _mapping(layer: Mapped) -> dict[str, object]:
    """Unroll, nest and tiles in loop-dimension notation, with the setting that the layer is at."""
    setting, place, nest = layer.setting, layer.place, Nest(layer.setting.dims)
    hierarchy = layer.query.hierarchy
    mapping = layer.table.describe(layer.row, nest, hierarchy)
    home = layer.query.profile.home
    held = [
        {"memory": tile.memory, "operand": tile.operand, "loops": tile.loops, "words": tile.words}
        for tile in tiles(layer.table, layer.row, hierarchy)
        # an input that stays is there in full
        if not (place.input_stays and home is not None and tile.memory == home.name and tile.operand == "I")
    ]
    return mapping | {
        "tiles": held,
        "dims": dict(zip(DIMS, nest.sizes, strict=True)),
        "bits": {"I": setting.activation_bits, "W": setting.weight_bits, "O": setting.out_bits},
        "density": {"I": setting.activation_density, "W": setting.weight_density, "O": setting.out_density},
        "input": "stays on chip" if place.input_stays else "dram",
        "weights": "stay on chip" if place.weight_stays else "dram",
        "output": "stays on chip" if place.output_stays else "dram" if setting.out_words else "streams on",
    }


def _utilisation(layer: Mapped, cycles: float) -> float:
    """Share of the multiplications the array could do in these cycles, at these widths, that are done."""
    query, setting = layer.query, layer.setting
    mac = query.profile.mac
    most = prod(axis.size for axis in query.profile.array.axes) * mac_lanes(
        mac, setting.activation_bits, setting.weight_bits
    )
    return setting.dims.macs * query.probabilities(setting)["cycle"] / (cycles * most)


def _bound_by(layer: Mapped, cycles: float) -> str:
    """The array, or the memory whose bandwidth makes the array wait."""
    query = layer.query
    busy = float(query.busy(layer.table, np.array([layer.row]), layer.setting)[0])
    if cycles <= busy * (1 + 1e-12):
        return "array"
    moved = query.transfers(layer.table, layer.row, layer.setting, layer.place)
    return max(moved, key=moved.__getitem__)


def _count_accesses(layer: Mapped, ledger: Ledger) -> None:
    """Words moved between the memories, and those that the arithmetic reads and writes in the PEs."""
    query, setting = layer.query, layer.setting
    hierarchy, profile = query.hierarchy, query.profile
    share = query.widths.stored_share(setting)
    for column, memory, write, factor, kind in query.wiring(setting, layer.place).flow.moves:
        words = factor * float(layer.table.columns[layer.row, column]) * (share if kind == FINISHED else 1.0)
        operand = hierarchy.columns[column][0].operand
        ledger.count(profile.memories[memory].name, operand, "write" if write else "read", words)
    if setting.channels:
        ledger.count(profile.memories[-1].name, "bias", "read", float(setting.channels))
    happens = query.probabilities(setting, residuals=False)
    macs = float(setting.dims.macs)
    inputs: tuple[Operand, ...] = ("I", "W")
    for operand in inputs:
        registers = hierarchy.registers(operand)
        if registers is not None:
            _count_spared(ledger, registers.name, operand, "read", macs, happens[f"read_{operand}"])
    psums = hierarchy.registers("O")
    if psums is not None:
        together = float(np.min(query.together(layer.table, np.array([layer.row]), setting)))
        done = 1.0 - (1.0 - happens["psum"]) ** together
        for direction in ("read", "write"):
            _count_spared(ledger, psums.name, "O", direction, macs / together, done)


def _count_spared(ledger: Ledger, memory: str, operand: str, direction: str, words: float, share: float) -> None:
    ledger.count(memory, operand, direction, words, None if share == 1.0 else words * share)
