"""The full account of a step: its energy split over its nodes, with accesses, mapping, cycles and utilisation."""

from __future__ import annotations

from collections.abc import Set
from math import prod
from typing import NamedTuple

import numpy as np

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.facts import StepFacts, node_work, read_facts
from hwc_onnx.cost.operands import Nest
from hwc_onnx.cost.query import Best
from hwc_onnx.cost.schedule import Step
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.types import NodeCost
from hwc_onnx.cost.vector import FREE_OPS, NOTHING_OPS, effort
from hwc_onnx.cost.widths import FINISHED
from hwc_onnx.graph.layer_graph import LayerGraph

Parts = dict[str, float]


class Situation(NamedTuple):
    """Which tensors stay during a step, the free sixteenths of the home memory, whether its weights stay for ever."""

    staying: Set[int]
    free: int
    kept: bool


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
    parts: dict[int, Parts] = {i: {} for i in step.nodes}
    for i in step.nodes:
        ops, lookups = node_work(graph, step, i)
        _add(parts[i], {"vector": energies.vector(ops, lookups)})
        if not step.layers:
            leakage = energies.vector_cycles(ops, lookups) * energies.query.leakage_pj_per_cycle
            _add(parts[i], {"leakage": leakage})
    for i, name, storage in step.reads:
        read = read_facts(graph, name, storage, biases)
        if read is not None:
            _add(parts[i], energies.moved(read, storage in situation.staying, False))
    for (i, _, storage), write in zip(step.writes[1 if step.layers else 0 :], facts.writes, strict=True):
        _add(parts[i], energies.moved(write, storage in situation.staying, True))
    which = {graph.layers[index].key: number for number, index in enumerate(step.layers)}
    made = {}
    for i in step.nodes:
        number = which.get(graph.nodes[i].key)
        if number is None:
            made[i] = _vector_node(energies, graph, step, i, parts[i])
        else:
            place = energies.place(facts, number, situation.staying, situation.free, situation.kept)
            made[i] = _layer_node(energies, graph, i, facts.layers[number][0], place, parts[i])
    return made


def _vector_node(energies: StepEnergies, graph: LayerGraph, step: Step, i: int, parts: Parts) -> NodeCost:
    node = graph.nodes[i]
    if node.op_type in FREE_OPS or node.op_type in NOTHING_OPS:
        method = "free"
    elif effort(node) is None:
        method = "unmodelled"
    else:
        method = "fused" if step.layers else "vector"
    cycles = 0.0 if step.layers else energies.vector_cycles(*node_work(graph, step, i))
    return NodeCost(node.key, node.op_type, 0, parts, cycles, _seconds(energies, cycles), method)


def _layer_node(
    energies: StepEnergies, graph: LayerGraph, i: int, setting: LayerSetting, place: Place, extra: Parts
) -> NodeCost:
    node = graph.nodes[i]
    best = energies.fitting(setting, place, node.key)
    table = energies.tables.table(setting.dims)
    parts = energies.query.parts(table, setting, place, best.row)
    _add(parts, extra)
    row = np.array([best.row])
    cycles = float(energies.query.cycles(table, row, setting, place)[0])
    busy = float(energies.query.busy(table, row, setting)[0])
    mapping = table.describe(best.row, Nest(setting.dims), energies.hierarchy)
    mapping["input"] = "stays on chip" if place.input_stays else "dram"
    mapping["output"] = "stays on chip" if place.output_stays else "dram" if setting.out_words else "streams on"
    pes = prod(axis.size for axis in energies.profile.array.axes)
    return NodeCost(
        key=node.key,
        op_type=node.op_type,
        macs=setting.dims.macs,
        energy=parts,
        cycles=cycles,
        latency_s=_seconds(energies, cycles),
        method="mapped",
        accesses=_accesses(energies, setting, place, best),
        mapping=mapping,
        utilisation=setting.dims.macs / (float(table.cycles[best.row]) * pes),
        bound_by="array" if cycles <= busy * (1 + 1e-12) else "bandwidth",
    )


def _accesses(
    energies: StepEnergies, setting: LayerSetting, place: Place, best: Best
) -> dict[str, dict[str, dict[str, float]]]:
    """Words read and written by memory and operand; register accesses of the arithmetic before any is gated."""
    hierarchy, profile = energies.hierarchy, energies.profile
    table = energies.tables.table(setting.dims)
    found: dict[str, dict[str, dict[str, float]]] = {}

    def count(memory: str, operand: str, direction: str, words: float) -> None:
        counts = found.setdefault(memory, {}).setdefault(operand, {"read": 0.0, "write": 0.0})
        counts[direction] += words

    stored = energies.query.widths.stored_share(setting)
    for column, memory, write, factor, kind in energies.query.wiring(setting, place).flow.moves:
        words = factor * float(table.columns[best.row, column]) * (stored if kind == FINISHED else 1.0)
        count(profile.memories[memory].name, hierarchy.columns[column][0].operand, "write" if write else "read", words)
    macs = float(setting.dims.macs)
    inputs: tuple[Operand, ...] = ("I", "W")
    for operand in inputs:
        registers = hierarchy.registers(operand)
        if registers is not None:
            count(registers.name, operand, "read", macs)
    psums = hierarchy.registers("O")
    if psums is not None:
        together = float(np.min(energies.query.together(table, np.array([best.row]), setting)))
        count(psums.name, "O", "read", macs / together)
        count(psums.name, "O", "write", macs / together)
    return found


def _seconds(energies: StepEnergies, cycles: float) -> float:
    return cycles / (energies.profile.frequency_mhz * 1e6)


def _add(into: Parts, more: Parts) -> None:
    for name, value in more.items():
        into[name] = into.get(name, 0.0) + value
