"""In which steps a graph runs, and how long each stored tensor lives.

Nodes joined by tensors that are never stored run as one step, at the place of their last node: a layer with its
activation, its batch normalization, the residual addition. Reshapes rename a tensor, they make no second one. All
this depends on the graph's structure only, so it is worked out once for all variants of a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwc_onnx.cost.vector import FREE_OPS, NOTHING_OPS
from hwc_onnx.graph.layer_graph import LayerGraph, Node


@dataclass(frozen=True)
class Step:
    """Nodes that run together. `nodes` and `layers` index the graph, `layer_nodes` are the nodes that are layers.

    `reads` are (node, tensor, storage) of stored operands read by other nodes than layers, `writes` (node, tensor,
    storage) of results stored; `inputs` gives, for each layer, the storage of its first operand and of its second
    activation operand (-1: none). A storage is a number; -1 means DRAM (graph inputs and outputs, constants).
    """

    nodes: tuple[int, ...]
    layers: tuple[int, ...]
    layer_nodes: frozenset[int]
    reads: tuple[tuple[int, str, int], ...]
    writes: tuple[tuple[int, str, int], ...]
    inputs: tuple[tuple[int, int], ...]
    born: tuple[int, ...]
    dies: tuple[int, ...]

    @property
    def head(self) -> int:
        """The layer that makes what is stored (index into the graph's layers), -1 if there is none."""
        return self.layers[-1] if self.layers else -1


@dataclass(frozen=True)
class Schedule:
    """Steps in execution order, and one tensor name for each storage that may stay on chip."""

    steps: tuple[Step, ...]
    storages: tuple[str, ...]


def schedule(graph: LayerGraph) -> Schedule:
    """Steps and lifetimes of a graph (its shapes, widths and densities do not matter)."""
    made_by = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(i)
    group = list(range(len(graph.nodes)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for name in graph.fused:
        if name in made_by:
            for reader in readers.get(name, []):
                group[root(reader)] = root(made_by[name])
    clusters: dict[int, list[int]] = {}
    for i in range(len(graph.nodes)):
        clusters.setdefault(root(i), []).append(i)
    original = renamed(graph)
    layer_index = {layer.key: i for i, layer in enumerate(graph.layers)}
    ordered = sorted(clusters.values(), key=max)
    shown = {name for name, first in original.items() if name in graph.outputs} | set(graph.outputs)
    outside = {original.get(name, name) for name in shown} | set(graph.inputs)
    # what goes into a body and comes out of it travels through DRAM, as the inputs and outputs of a graph do
    owners = [node for node in graph.nodes if node.key in graph.bodies]
    outside |= {original.get(name, name) for node in owners for name in (*node.inputs, *node.outputs)}
    first_use: dict[str, int] = {}
    last_use: dict[str, int] = {}
    for position, cluster in enumerate(ordered):
        for i in cluster:
            for name in graph.nodes[i].inputs:
                if name in made_by and name not in graph.fused:
                    last_use[original.get(name, name)] = position
            for name in graph.nodes[i].outputs:
                if name and name not in graph.fused and original.get(name, name) == name:
                    first_use[name] = position
    # a tensor of unknown size (of a sequence, say) is no tensor of the graph, and nothing is counted for it
    stored = {name for name, info in graph.tensors.items() if info.kind == "activation"}
    names = [name for name in first_use if name in last_use and name not in outside and name in stored]
    number = {name: i for i, name in enumerate(names)}
    steps = []
    for position, cluster in enumerate(ordered):
        steps.append(_step(graph, cluster, layer_index, original, number, position, first_use, last_use, made_by))
    return Schedule(tuple(steps), tuple(names))


def _step(
    graph: LayerGraph,
    cluster: list[int],
    layer_index: dict[str, int],
    original: dict[str, str],
    number: dict[str, int],
    position: int,
    first_use: dict[str, int],
    last_use: dict[str, int],
    made_by: dict[str, int],
) -> Step:
    reads: list[tuple[int, str, int]] = []
    writes: list[tuple[int, str, int]] = []
    inputs = []
    seen: set[str] = set()
    for i in cluster:
        node = graph.nodes[i]
        layer = layer_index.get(node.key)
        if layer is not None:
            operands = [number.get(original.get(name, name), -1) for name in graph.layers[layer].inputs]
            inputs.append((operands[0], operands[1] if len(operands) > 1 else -1))
        elif not _moves_nothing(graph, node):
            for name in dict.fromkeys(node.inputs):
                if not name or name in graph.fused or name in seen or name not in graph.tensors:
                    continue
                seen.add(name)
                reads.append((i, name, number.get(original.get(name, name), -1)))
        if _moves_nothing(graph, node):
            continue
        for name in node.outputs:
            if name and name not in graph.fused and name in graph.tensors:
                writes.append((i, name, number.get(name, -1)))
    layers = tuple(layer_index[graph.nodes[i].key] for i in cluster if graph.nodes[i].key in layer_index)
    born = tuple(number[n] for n, at in first_use.items() if at == position and n in number)
    dies = tuple(number[n] for n, at in last_use.items() if at == position and n in number)
    layer_nodes = frozenset(i for i in cluster if graph.nodes[i].key in layer_index)
    return Step(tuple(cluster), layers, layer_nodes, tuple(reads), tuple(writes), tuple(inputs), born, dies)


def _moves_nothing(graph: LayerGraph, node: Node) -> bool:
    """Whether a node has no traffic of its own; what a body moves is counted with the body."""
    return node.op_type in FREE_OPS or node.op_type in NOTHING_OPS or node.key in graph.bodies


def renamed(graph: LayerGraph) -> dict[str, str]:
    """Tensor -> the tensor it is another name of, for results of reshapes."""
    original: dict[str, str] = {}
    for node in graph.nodes:
        if node.op_type in FREE_OPS and node.inputs and node.inputs[0]:
            source = node.inputs[0]
            original[node.outputs[0]] = original.get(source, source)
    return original
