"""Control flow: a node with bodies costs what its body costs, times its trips; of an If, the dearer branch.

A body is a network of its own, run from the beginning on each trip: what it takes in and hands out travels through DRAM,
and so do its weights, unless all of them are among those that stay on chip for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hwc_onnx.cost.terms import ordered
from hwc_onnx.cost.types import COMPONENTS, ModelCost, NodeCost
from hwc_onnx.graph.layer_graph import Body, LayerGraph, Node

MEMORY = 256
"""Remembered bodies."""


@dataclass(frozen=True)
class BodyCost:
    """The body that runs (the dearest, where one of several does) and what one trip costs."""

    body: Body
    once: ModelCost

    @property
    def total(self) -> float:
        """Energy of all trips."""
        return self.once.total * self.body.trips


class BodyCosts:
    """Costs of bodies, remembered: they are the same in all variants of a graph. `cost` takes a body and whether its
    weights stay on chip for ever.
    """

    def __init__(self, cost: Callable[[LayerGraph, bool], ModelCost]) -> None:
        self._cost = cost
        self._known: dict[tuple[int, bool], tuple[LayerGraph, ModelCost]] = {}

    def of(self, graph: LayerGraph, key: str, kept: bool) -> BodyCost:
        """What the node `key` of `graph` runs: of several bodies, the one with the most energy (the first of equals)."""
        return max(
            (BodyCost(body, self._once(body.graph, kept)) for body in graph.bodies[key]), key=lambda cost: cost.total
        )

    def _once(self, body: LayerGraph, kept: bool) -> ModelCost:
        found = self._known.get((id(body), kept))
        if found is None:
            if len(self._known) > MEMORY:
                self._known.clear()
            # the graph is kept beside the result, so that its identity cannot be taken by another one
            found = self._known[id(body), kept] = body, self._cost(body, kept)
        return found[1]


def owner_cost(node: Node, cost: BodyCost) -> NodeCost:
    """The account of a node with a body; its terms are those of the nodes inside, with all trips counted."""
    trips, once = cost.body.trips, cost.once
    terms = [
        replace(term, what=f"{inner.key}: {term.what}", count=term.count * trips)
        for inner in once.nodes
        for term in inner.terms
    ]
    return NodeCost(
        node.key,
        node.op_type,
        once.macs * trips,
        {name: once.energy[name] * trips for name in COMPONENTS},
        once.cycles * trips,
        once.latency_s * trips,
        f"{cost.body.name} x {trips}",
        accesses=_accesses(once, trips),
        terms=tuple(ordered(terms)),
    )


def _accesses(once: ModelCost, trips: int) -> dict[str, dict[str, dict[str, float]]]:
    """Words by memory and operand of all nodes inside, all trips counted; those done where zeros spare some."""
    added: dict[str, dict[str, dict[str, float]]] = {}
    for node in once.nodes:
        for memory, operands in node.accesses.items():
            for operand, counts in operands.items():
                into = added.setdefault(memory, {}).setdefault(operand, {"read": 0.0, "write": 0.0})
                for name in ("read", "write"):
                    done = f"{name}_done"
                    if done in counts or done in into:
                        into[done] = into.get(done, into[name]) + counts.get(done, counts[name]) * trips
                    into[name] += counts[name] * trips
    return added


def weight_bits(body: Body) -> int:
    """Bits of all weights inside."""
    own = sum(layer.params * layer.weight_bits for layer in body.graph.layers if layer.weight is not None)
    return own + sum(weight_bits(inner) for bodies in body.graph.bodies.values() for inner in bodies)
