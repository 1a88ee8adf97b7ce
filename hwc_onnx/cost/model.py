"""Energy of a whole layer graph on one accelerator: every node, every stored tensor, nothing twice.

The energy is a pure function of the graph and the profile. Layers are mapped (`query`), everything else is counted in
the post-processing unit, and a pass over tensor lifetimes decides what stays on chip (`residency`). Bodies of control
flow are graphs of their own (`bodies`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from hwc_onnx.cost.accelerator import AcceleratorProfile
from hwc_onnx.cost.account import Situation, account
from hwc_onnx.cost.bodies import BodyCosts, owner_cost, weight_bits
from hwc_onnx.cost.facts import StepFacts, one_step_facts, step_facts, tables
from hwc_onnx.cost.footprint import activation_bytes
from hwc_onnx.cost.formats import element_bits
from hwc_onnx.cost.laws import stored_bits
from hwc_onnx.cost.query import CHANNEL_BITS
from hwc_onnx.cost.residency import Residency, choose
from hwc_onnx.cost.schedule import Schedule, Step, schedule
from hwc_onnx.cost.steps import StepEnergies
from hwc_onnx.cost.types import COMPONENTS, ModelCost, NodeCost
from hwc_onnx.cost.vector import effort
from hwc_onnx.events import Listener, silent
from hwc_onnx.graph.before import float_graph
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.plan import CompressionPlan, LayerConfig, with_plan

STRUCTURES = 64
"""Remembered schedules."""


@dataclass(frozen=True)
class Settled:
    """One graph's steps, the names of its biases, what stays on chip during each step, and the energy of its bodies."""

    steps: tuple[Step, ...]
    biases: frozenset[str]
    situations: tuple[Situation, ...]
    inside: tuple[float, ...]


class CostModel:
    """Energy, cycles and traffic on one accelerator.

    `cache_dir` keeps searched mappings between runs, `on_event` hears how many are found where that takes long. An instance
    is not meant to be shared between threads.
    """

    def __init__(
        self, profile: AcceleratorProfile, cache_dir: str | Path | None = None, on_event: Listener = silent
    ) -> None:
        self.profile = profile
        self.energies = StepEnergies(profile, None if cache_dir is None else Path(cache_dir), on_event)
        self.bodies = BodyCosts(self._cost)
        self._schedules: dict[int, tuple[object, int, Schedule, frozenset[str]]] = {}
        home = profile.home
        stay = profile.residency.activations == "auto"
        self._capacity = home.bytes * 8 if home is not None and home.bytes is not None and stay else 0

    def cost(self, graph: LayerGraph) -> ModelCost:
        """Every node's energy by component, cycles, accesses and mapping; the total is the sum of the nodes.

        Raises:
            ModelError: some layer fits the accelerator's memories in no way.
        """
        return self._cost(graph)

    def _cost(self, graph: LayerGraph, kept_inside: bool | None = None) -> ModelCost:
        """As `cost`; of a body, `kept_inside` says whether its weights stay on chip for ever."""
        plan, biases = self._structure(graph)
        facts = step_facts(graph, plan, biases)
        kept = self._kept_weights(graph, plan, facts) if kept_inside is None else [kept_inside] * len(facts)
        chosen = self._residency(graph, plan, facts, kept)
        nodes: dict[int, NodeCost] = {}
        for index, step in enumerate(plan.steps):
            situation = Situation(chosen.staying[index], chosen.free[index], kept[index])
            nodes.update(account(self.energies, graph, step, facts[index], situation, biases))
            for i in step.nodes:
                if graph.nodes[i].key in graph.bodies:
                    inside = self.bodies.of(graph, graph.nodes[i].key, kept[index])
                    nodes[i] = owner_cost(graph.nodes[i], inside)
        made = tuple(nodes[i] for i in range(len(graph.nodes)))
        macs, traffic = sum(node.macs for node in made), _traffic(graph)
        unknown = self._unknown_macs(graph, plan, kept)
        return ModelCost(
            nodes=made,
            energy={name: sum(node.energy.get(name, 0.0) for node in made) for name in COMPONENTS},
            energy_unit=self.profile.unit,
            cycles=sum(node.cycles for node in made),
            latency_s=sum(node.latency_s for node in made),
            coverage_macs=macs / (macs + unknown) if macs + unknown else 1.0,
            coverage_traffic=traffic[0] / traffic[1] if traffic[1] else 1.0,
            accelerator_bytes=self.accelerator_bytes(graph),
            activation_bytes=self._activation_bytes(graph, plan),
            macs=macs,
            unmodelled=_unmodelled(graph),
            reference_mac_pj=self.profile.reference_mac_pj,
        )

    def cost_total(self, graph: LayerGraph) -> float:
        """`cost(graph).total`, fast: what a search asks for. Infinite where `cost` would refuse."""
        plan, biases = self._structure(graph)
        facts = step_facts(graph, plan, biases)
        return self._residency(graph, plan, facts, self._kept_weights(graph, plan, facts)).energy

    def settle(self, graph: LayerGraph) -> Settled:
        """The steps of a graph with what stays on chip in it, for `step_energy` of its variants."""
        plan, biases = self._structure(graph)
        facts = step_facts(graph, plan, biases)
        kept = self._kept_weights(graph, plan, facts)
        chosen = self._residency(graph, plan, facts, kept)
        situations = (Situation(chosen.staying[i], chosen.free[i], kept[i]) for i in range(len(facts)))
        return Settled(plan.steps, biases, tuple(situations), tuple(self._inside(graph, plan, kept)))

    def step_energy(self, graph: LayerGraph, settled: Settled, index: int) -> float:
        """Energy of one step of a variant of the settled graph, what stays on chip being as settled: for tables.

        The steps add up to `cost_total` wherever the variant's own best choice of what stays is the settled one.
        """
        facts = one_step_facts(graph, settled.steps[index], settled.biases)
        return self.energies.energy(facts, *settled.situations[index]) + settled.inside[index]

    def baseline(self, graph: LayerGraph, plan: CompressionPlan | None = None) -> ModelCost:
        """The INT8 baseline: all layers W8A8, nothing pruned; `plan` may carry the baseline's own densities."""
        int8 = LayerConfig(weight_bits=8, activation_bits=8)
        return self.cost(with_plan(graph, plan or CompressionPlan.uniform([layer.key for layer in graph.layers], int8)))

    def float_cost(self, graph: LayerGraph) -> ModelCost:
        """The unquantized network: every operand 16 bits wide, weights dense, activation densities as they are."""
        return self.cost(float_graph(graph))

    def accelerator_bytes(self, graph: LayerGraph) -> int:
        """Bytes of all weights as the accelerator's outermost memory stores them, bias and scale and tables included."""
        dram = self.profile.memories[-1]
        bits = 0.0
        for info in tables(graph):
            stored = stored_bits(info.bits, dram.granules(weights=True))
            bits += prod(info.shape) * element_bits(stored, info.density, dram.formats.get("W"))
        for layer in graph.layers:
            if layer.weight is not None:
                stored = stored_bits(layer.weight_bits, dram.granules(weights=True))
                width = element_bits(stored, layer.weight_density, dram.formats.get("W"), layer.nm_pattern, layer.loop_dims.C)
                bits += layer.params * width + layer.loop_dims.K * layer.loop_dims.G * CHANNEL_BITS
        inside = (body.graph for bodies in graph.bodies.values() for body in bodies)
        return ceil(bits / 8) + sum(self.accelerator_bytes(body) for body in inside)

    def _activation_bytes(self, graph: LayerGraph, plan: Schedule) -> int:
        """Bytes of all activations that the outermost memory holds at once, at most."""
        granules = self.profile.memories[-1].granules(weights=False)
        return activation_bytes(graph, plan, lambda bits: stored_bits(bits, granules))

    def _structure(self, graph: LayerGraph) -> tuple[Schedule, frozenset[str]]:
        """Schedule and bias names; remembered for the variants of a graph, which share its `fused` mapping."""
        known = self._schedules.get(id(graph.fused))
        if known is not None and known[0] is graph.fused and known[1] == len(graph.nodes):
            return known[2], known[3]
        biases = frozenset(layer.bias for layer in graph.layers if layer.bias is not None)
        made = schedule(graph)
        if len(self._schedules) > STRUCTURES:
            self._schedules.clear()
        # the mapping itself is kept beside the result, so that its identity cannot be taken by another one
        self._schedules[id(graph.fused)] = (graph.fused, len(graph.nodes), made, biases)
        return made, biases

    def _inside(self, graph: LayerGraph, plan: Schedule, kept: list[bool]) -> list[float]:
        """Energy of the bodies of each step."""
        if not graph.bodies:
            return [0.0] * len(plan.steps)
        return [
            sum(self.bodies.of(graph, key, stay).total for i in step.nodes if (key := graph.nodes[i].key) in graph.bodies)
            for step, stay in zip(plan.steps, kept, strict=True)
        ]

    def _unknown_macs(self, graph: LayerGraph, plan: Schedule, kept: list[bool]) -> int:
        """Multiply-accumulates that are not modelled: a node of unknown work counts one per output element."""
        keys = {key for key, _ in _unmodelled_here(graph)}
        found = sum(
            prod(graph.tensors[name].shape)
            for node in graph.nodes
            if node.key in keys
            for name in node.outputs
            if name in graph.tensors
        )
        for step, stay in zip(plan.steps, kept, strict=True):
            for key in (graph.nodes[i].key for i in step.nodes if graph.nodes[i].key in graph.bodies):
                body = self.bodies.of(graph, key, stay).body
                inner, _ = self._structure(body.graph)
                found += body.trips * self._unknown_macs(body.graph, inner, [stay] * len(inner.steps))
        return found

    def _kept_weights(self, graph: LayerGraph, plan: Schedule, facts: list[StepFacts]) -> list[bool]:
        """Whether the weights of each step stay on chip for ever: the first ones that fit `residency.weights_bytes`."""
        budget = self.profile.residency.weights_bytes * 8
        if budget == 0:
            return [False] * len(facts)
        kept, used = [], 0
        for step, fact in zip(plan.steps, facts, strict=True):
            for setting, _, _ in fact.layers:
                if setting.weighted:
                    dims = setting.dims
                    used += setting.weight_bits * dims.G * dims.K * dims.C * dims.FY * dims.FX
            used += sum(weight_bits(body) for i in step.nodes for body in graph.bodies.get(graph.nodes[i].key, ()))
            kept.append(used <= budget)
        return kept

    def _residency(self, graph: LayerGraph, plan: Schedule, facts: list[StepFacts], kept: list[bool]) -> Residency:
        """The best choice of tensors that stay."""
        home = self.profile.home
        sizes = []
        for name in plan.storages:
            info = graph.tensors[name]
            sizes.append(0 if home is None else prod(info.shape) * stored_bits(info.bits, home.pack))
        ask, inside = self.energies.energy, self._inside(graph, plan, kept)
        return choose(
            plan,
            sizes,
            self._capacity,
            lambda index, staying, free: ask(facts[index], staying, free, kept[index]) + inside[index],
        )


def _unmodelled(graph: LayerGraph) -> tuple[tuple[str, str], ...]:
    """Nodes whose work is not known, with the reason; those in the body of a node as "node/inner node"."""
    inside = (
        (f"{owner}/{key}", reason)
        for owner, bodies in graph.bodies.items()
        for body in bodies
        for key, reason in _unmodelled(body.graph)
    )
    return (*_unmodelled_here(graph), *inside)


def _unmodelled_here(graph: LayerGraph) -> tuple[tuple[str, str], ...]:
    listed = {key for key, _ in graph.unmodelled} | set(graph.bodies)
    mapped = {layer.key for layer in graph.layers}
    return graph.unmodelled + tuple(
        (node.key, f"no work is known for operator {node.op_type}; its traffic is counted")
        for node in graph.nodes
        if node.key not in listed and node.key not in mapped and effort(node) is None
    )


def _traffic(graph: LayerGraph) -> tuple[int, int]:
    """How many nodes' results have a known shape, and how many results there are, those in bodies included."""
    names = [name for node in graph.nodes for name in node.outputs if name]
    known, total = sum(name in graph.tensors for name in names), len(names)
    for bodies in graph.bodies.values():
        for body in bodies:
            more, all_of_them = _traffic(body.graph)
            known, total = known + more, total + all_of_them
    return known, total
