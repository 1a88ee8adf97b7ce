"""The full account of a step: its energy split over its nodes, with terms, accesses, mapping, cycles and utilisation."""

from __future__ import annotations

from collections.abc import Set
from math import prod
from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.accumulator import accumulator_of
from hwc_onnx.cost.facts import StepFacts, Stored, node_work, read_facts
from hwc_onnx.cost.laws import mac_lanes
from hwc_onnx.cost.operands import DIMS, Nest
from hwc_onnx.cost.placement import tiles
from hwc_onnx.cost.schedule import Step
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.terms import Mapped, layer_terms, leakage_terms, ordered, stored_terms, work_terms
from hwc_onnx.cost.types import NodeCost, Term
from hwc_onnx.cost.vector import FREE_OPS, NOTHING_OPS, effort
from hwc_onnx.cost.widths import FINISHED
from hwc_onnx.graph.layer_graph import LayerGraph

Parts = dict[str, float]
Accesses = dict[str, dict[str, dict[str, float]]]


class Situation(NamedTuple):
    """Which tensors stay during a step, the free sixteenths of the home memory, whether its weights stay for ever."""

    staying: Set[int]
    free: int
    kept: bool


class _Account:
    """What is known of one node so far: energy by component, the terms it is the sum of, words by memory and operand."""

    def __init__(self, energies: StepEnergies) -> None:
        self.energies = energies
        self.parts: Parts = {}
        self.terms: list[Term] = []
        self.accesses: Accesses = {}

    def add(self, parts: Parts, terms: list[Term]) -> None:
        """Add to the energy, in both forms."""
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value
        self.terms += terms

    def count(self, memory: str, operand: str, direction: str, words: float, done: float | None = None) -> None:
        """Count words; `done` of them where zeros spare some."""
        counts = self.accesses.setdefault(memory, {}).setdefault(operand, {"read": 0.0, "write": 0.0})
        if done is not None or f"{direction}_done" in counts:
            before = counts.get(f"{direction}_done", counts[direction])
            counts[f"{direction}_done"] = before + (words if done is None else done)
        counts[direction] += words

    def stored(self, name: str, tensor: Stored, stays: bool, write: bool) -> None:
        """A whole tensor read or written by the post-processing unit."""
        profile = self.energies.profile
        self.add(self.energies.moved(tensor, stays, write), stored_terms(profile, name, tensor, stays, write))
        operand, words = "O" if write else "I", float(tensor.words)
        home, dram = profile.home, profile.memories[-1]
        if not stays:
            self.count(dram.name, operand, "write" if write else "read", words)
        if home is not None:
            for direction in ("read", "write"):
                if not stays or (direction == "write") == write:
                    self.count(home.name, operand, direction, words)


def account(
    energies: StepEnergies,
    graph: LayerGraph,
    step: Step,
    facts: StepFacts,
    situation: Situation,
    biases: frozenset[str],
) -> dict[int, NodeCost]:
    """Cost of each node of a step by its index in the graph; together they are the energy of the step.

    Raises:
        ModelError: no mapping of the step's layer fits the accelerator.
    """
    accounts = {i: _Account(energies) for i in step.nodes}
    for i in step.nodes:
        ops, lookups = node_work(graph, step, i)
        what = "requantize outputs" if i in step.layer_nodes else f"operations of {graph.nodes[i].op_type}"
        accounts[i].add({"vector": energies.vector(ops, lookups)}, work_terms(energies.profile, what, ops, lookups))
        if not step.layers:
            cycles = energies.vector_cycles(ops, lookups)
            leakage = {"leakage": cycles * energies.query.leakage_pj_per_cycle}
            accounts[i].add(leakage, leakage_terms(energies.query, cycles))
    for i, name, storage in step.reads:
        read = read_facts(graph, name, storage, biases)
        if read is not None:
            accounts[i].stored(name, read, storage in situation.staying, False)
    for (i, name, storage), write in zip(step.writes[1 if step.layers else 0 :], facts.writes, strict=True):
        accounts[i].stored(name, write, storage in situation.staying, True)
    which = {graph.layers[index].key: number for number, index in enumerate(step.layers)}
    made = {}
    for i in step.nodes:
        number = which.get(graph.nodes[i].key)
        if number is None:
            made[i] = _vector_node(graph, step, i, accounts[i])
        else:
            place = energies.place(facts, number, situation.staying, situation.free, situation.kept)
            made[i] = _layer_node(graph, i, facts.layers[number][0], place, accounts[i])
    return made


def _vector_node(graph: LayerGraph, step: Step, i: int, found: _Account) -> NodeCost:
    node, energies = graph.nodes[i], found.energies
    if node.op_type in FREE_OPS or node.op_type in NOTHING_OPS:
        method = "free"
    elif effort(node) is None:
        method = "unmodelled"
    else:
        method = "fused" if step.layers else "vector"
    cycles = 0.0 if step.layers else energies.vector_cycles(*node_work(graph, step, i))
    return NodeCost(
        node.key,
        node.op_type,
        0,
        found.parts,
        cycles,
        _seconds(energies, cycles),
        method,
        accesses=found.accesses,
        bound_by="vector" if cycles else "",
        terms=tuple(ordered(found.terms)),
    )


def _layer_node(graph: LayerGraph, i: int, setting: LayerSetting, place: Place, found: _Account) -> NodeCost:
    node, energies = graph.nodes[i], found.energies
    row = energies.fitting(setting, place, node.key).row
    layer = Mapped(energies.query, energies.tables.table(setting.dims), row, setting, place)
    found.add(energies.query.parts(layer.table, setting, place, row), layer_terms(layer))
    _count_accesses(layer, found)
    cycles = float(energies.query.cycles(layer.table, np.array([row]), setting, place)[0])
    return NodeCost(
        key=node.key,
        op_type=node.op_type,
        macs=setting.dims.macs,
        energy=found.parts,
        cycles=cycles,
        latency_s=_seconds(energies, cycles),
        method="mapped",
        accesses=found.accesses,
        mapping=_mapping(layer, energies),
        utilisation=_utilisation(layer, cycles),
        bound_by=_bound_by(layer, cycles),
        terms=tuple(ordered(found.terms)),
        accumulator=accumulator_of(graph.layer(node.key), energies.profile.mac.accumulator_bits),
    )


def _mapping(layer: Mapped, energies: StepEnergies) -> dict[str, object]:
    """Unroll, nest and tiles in loop-dimension notation, with the setting that the layer is at."""
    setting, place, nest = layer.setting, layer.place, Nest(layer.setting.dims)
    mapping = layer.table.describe(layer.row, nest, energies.hierarchy)
    home = energies.profile.home
    held = [
        {"memory": tile.memory, "operand": tile.operand, "loops": tile.loops, "words": tile.words}
        for tile in tiles(layer.table, layer.row, nest, energies.hierarchy)
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


def _count_accesses(layer: Mapped, found: _Account) -> None:
    """Words moved between the memories, and those that the arithmetic reads and writes in the PEs."""
    query, setting = layer.query, layer.setting
    hierarchy, profile = query.hierarchy, query.profile
    share = query.widths.stored_share(setting)
    for column, memory, write, factor, kind in query.wiring(setting, layer.place).flow.moves:
        words = factor * float(layer.table.columns[layer.row, column]) * (share if kind == FINISHED else 1.0)
        operand = hierarchy.columns[column][0].operand
        found.count(profile.memories[memory].name, operand, "write" if write else "read", words)
    if setting.channels:
        found.count(profile.memories[-1].name, "bias", "read", float(setting.channels))
    happens = query.probabilities(setting, residuals=False)
    macs = float(setting.dims.macs)
    inputs: tuple[Operand, ...] = ("I", "W")
    for operand in inputs:
        registers = hierarchy.registers(operand)
        if registers is not None:
            _count_spared(found, registers.name, operand, "read", macs, happens[f"read_{operand}"])
    psums = hierarchy.registers("O")
    if psums is not None:
        together = float(np.min(query.together(layer.table, np.array([layer.row]), setting)))
        done = 1.0 - (1.0 - happens["psum"]) ** together
        for direction in ("read", "write"):
            _count_spared(found, psums.name, "O", direction, macs / together, done)


def _count_spared(found: _Account, memory: str, operand: str, direction: str, words: float, share: float) -> None:
    found.count(memory, operand, direction, words, None if share == 1.0 else words * share)


def _seconds(energies: StepEnergies, cycles: float) -> float:
    return cycles / (energies.profile.frequency_mhz * 1e6)
