"""How much memory the stored activations of one inference take at once.

A tensor takes its place from the step that makes it (a graph input from the start) to the last step that reads it (a
graph output to the end). Places are free again at once and none is lost between tensors, so this is the least that any
allocation needs. Room has to be there for the densest input, so zeros that a format leaves out do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

from hwc_onnx.cost.schedule import Schedule, renamed, schedule
from hwc_onnx.graph.layer_graph import LayerGraph


def activation_bytes(graph: LayerGraph, plan: Schedule, stored_bits: Callable[[int], int]) -> int:
    """Bytes of the largest set of stored activations that are needed at the same time.

    Args:
        graph: the graph, with the widths of its tensors.
        plan: its schedule.
        stored_bits: bits that an element of a given width takes in memory.

    Bodies of a step run inside it: what they take is added to what is alive there.
    """
    original = renamed(graph)
    last = len(plan.steps) - 1
    born: dict[str, int] = dict.fromkeys((original.get(name, name) for name in graph.inputs), 0)
    dies: dict[str, int] = {}
    for position, step in enumerate(plan.steps):
        for node in (graph.nodes[i] for i in step.nodes):
            for name in (*node.inputs, *node.outputs):
                if name and name not in graph.fused:
                    born.setdefault(original.get(name, name), position)
                    dies[original.get(name, name)] = position
    dies |= dict.fromkeys((original.get(name, name) for name in graph.outputs), last)
    change = [0] * (last + 2)
    for name, first in born.items():
        info = graph.tensors.get(name)
        if info is not None and info.kind != "constant":
            size = prod(info.shape) * stored_bits(info.bits)
            change[first] += size
            change[dies.get(name, last) + 1] -= size
    most, alive = 0, 0
    for position, step in enumerate(plan.steps):
        alive += change[position]
        most = max(most, alive + 8 * sum(_inside(graph, i, stored_bits) for i in step.nodes))
    return ceil(most / 8)


def _inside(graph: LayerGraph, node: int, stored_bits: Callable[[int], int]) -> int:
    """Bytes that the largest of a node's bodies takes."""
    bodies = graph.bodies.get(graph.nodes[node].key, ())
    return max((activation_bytes(body.graph, schedule(body.graph), stored_bits) for body in bodies), default=0)
