"""The full account of a step: its energy split over its nodes, with terms, accesses, mapping, cycles and utilisation."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import NamedTuple

from hwc_onnx.cost.accumulator import accumulator_of
from hwc_onnx.cost.facts import StepFacts, node_work, read_facts
from hwc_onnx.cost.layer_cost import mapped_cost, seconds
from hwc_onnx.cost.ledger import Ledger
from hwc_onnx.cost.schedule import Step
from hwc_onnx.cost.setting import LayerSetting, Place
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.terms import Mapped, leakage_terms, ordered, work_terms
from hwc_onnx.cost.types import NodeCost
from hwc_onnx.cost.vector import FREE_OPS, NOTHING_OPS, effort
from hwc_onnx.graph.layer_graph import LayerGraph


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
    accounts = {i: Ledger(energies) for i in step.nodes}
    for i in step.nodes:
        ops, lookups = node_work(graph, step, i)
        what = "requantize outputs" if i in step.layer_nodes else f"operations of {graph.nodes[i].op_type}"
        accounts[i].add({"vector": energies.vector(ops, lookups)}, work_terms(energies.profile, what, ops, lookups))
    times = dict(zip(step.nodes, energies.own_cycles(facts, situation.staying), strict=True))
    for i, (cycles, _) in times.items():
        if cycles:
            leakage = {"leakage": cycles * energies.query.leakage_pj_per_cycle}
            accounts[i].add(leakage, leakage_terms(energies.query, cycles))
    for asked in step.reads:
        i, name, storage = asked
        read = read_facts(graph, step, asked, biases)
        if read is not None:
            accounts[i].stored(name, read, storage in situation.staying, False)
    for (i, name, storage), write in zip(step.writes[1 if step.layers else 0 :], facts.writes, strict=True):
        accounts[i].stored(name, write, storage in situation.staying, True)
    which = {graph.layers[index].key: number for number, index in enumerate(step.layers)}
    made = {}
    for i in step.nodes:
        number = which.get(graph.nodes[i].key)
        if number is None:
            made[i] = _vector_node(graph, step, i, accounts[i], times[i])
        else:
            place = energies.place(facts, number, situation.staying, situation.free, situation.kept)
            cost = _layer_node(graph, i, facts.layers[number][0], place, accounts[i])
            made[i] = _longer(cost, times[i][0], energies)
    return made


def _vector_node(
    graph: LayerGraph, step: Step, i: int, ledger: Ledger, time: tuple[float, str]
) -> NodeCost:  # fmt: skip
    node, energies = graph.nodes[i], ledger.energies
    if node.op_type in FREE_OPS or node.op_type in NOTHING_OPS:
        method = "free"
    elif effort(node) is None:
        method = "unmodelled"
    else:
        method = "fused" if step.layers else "vector"
    cycles, bound_by = time
    return NodeCost(
        node.key,
        node.op_type,
        0,
        ledger.parts,
        cycles,
        seconds(energies.profile, cycles),
        method,
        accesses=ledger.accesses,
        bound_by=bound_by if cycles else "",
        terms=tuple(ordered(ledger.terms)),
    )


def _longer(cost: NodeCost, cycles: float, energies: StepEnergies) -> NodeCost:
    """A layer that stores further results takes the time of these besides."""
    if not cycles:
        return cost
    taken = cost.cycles + cycles
    utilisation = cost.utilisation * cost.cycles / taken
    return replace(cost, cycles=taken, latency_s=seconds(energies.profile, taken), utilisation=utilisation)


def _layer_node(graph: LayerGraph, i: int, setting: LayerSetting, place: Place, ledger: Ledger) -> NodeCost:
    node, energies = graph.nodes[i], ledger.energies
    row = energies.fitting(setting, place, node.key).row
    table = energies.query.reduced(energies.tables.table(setting.dims), setting)
    layer = Mapped(energies.query, table, row, setting, place)
    accumulator = accumulator_of(graph.layer(node.key), energies.profile.mac.accumulator_bits)
    return mapped_cost(layer, ledger, node.key, node.op_type, accumulator)
