"""What one graph says about each step: layer settings, tensor sizes and vector work, as small hashable records.

Tensors are the only source of widths and densities: a layer reads its input at the width and density of the stored
tensor, so a plan's forecast and the re-parsed written file cannot differ.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from hwc_onnx.cost.schedule import Schedule, Step
from hwc_onnx.cost.setting import LayerSetting
from hwc_onnx.cost.vector import picks_rows, taken, work
from hwc_onnx.graph.layer_graph import Layer, LayerGraph, TensorInfo

IMMEDIATE_WORDS = 8
"""Constants up to this size are part of the instruction, not read from memory."""


INTEGERS = ("int", "uint", "bool")
"""How the types of constants begin that are indices, shapes or masks, which the host keeps."""


class Stored(NamedTuple):
    """What a node reads or writes of a stored tensor: elements, width in bits, density, storage number (-1: DRAM).

    A `table` is a constant of which only some rows are read: these go straight from DRAM to the unit that asks for them.
    `node` is the place in its step of the node that moves it.
    """

    words: int
    bits: int
    density: float
    storage: int
    table: bool
    node: int


class StepFacts(NamedTuple):
    """One step: its layers with the storages of their operands, vector work, stored reads and writes.

    With a layer, what the step stores first is part of the layer's setting and `output` is its storage (-1: DRAM);
    `writes` are the others. `work` is, for each node, how many operations and look-ups no layer hides.
    """

    layers: tuple[tuple[LayerSetting, int, int], ...]
    output: int
    ops: float
    lookups: float
    work: tuple[float, ...]
    reads: tuple[Stored, ...]
    writes: tuple[Stored, ...]


def step_facts(graph: LayerGraph, plan: Schedule, biases: frozenset[str]) -> list[StepFacts]:
    """Facts of every step of `plan`, which must be the schedule of this graph's structure."""
    return [one_step_facts(graph, step, biases) for step in plan.steps]


def read_facts(
    graph: LayerGraph, step: Step, read: tuple[int, str, int], biases: frozenset[str]
) -> Stored | None:  # fmt: skip
    """What one of a step's reads moves; None for biases (counted with their layer) and immediate constants."""
    i, name, storage = read
    info, node = graph.tensors[name], graph.nodes[i]
    place, table = step.nodes.index(i), False
    if info.kind == "constant":
        size = prod(info.shape)
        if name in biases or size <= IMMEDIATE_WORDS or info.dtype.startswith(INTEGERS):
            return None
        storage, table = -1, picks_rows(node, name)
    return Stored(taken(node, name, graph.tensors), info.bits, info.density, storage, table, place)


def tables(graph: LayerGraph) -> list[TensorInfo]:
    """Constants that rows are taken from, once each; a layer's own weights, integers and immediate constants are none."""
    weights = {name for layer in graph.layers for name in (layer.weight, layer.state_weight)}
    asked = {name for node in graph.nodes for name in node.inputs[:1] if name and picks_rows(node, name)}
    found = (graph.tensors[name] for name in sorted(asked - weights) if name in graph.tensors)
    return [
        info
        for info in found
        if info.kind == "constant" and prod(info.shape) > IMMEDIATE_WORDS and not info.dtype.startswith(INTEGERS)
    ]


def node_work(graph: LayerGraph, step: Step, i: int) -> tuple[float, float]:
    """Element operations and look-ups of node `i` of a step; a layer requantizes each of its outputs."""
    node = graph.nodes[i]
    if i in step.layer_nodes:
        return float(prod(graph.tensors[node.outputs[0]].shape)), 0.0
    return work(node, graph.tensors)


def layer_setting(graph: LayerGraph, layer: Layer, stored: TensorInfo | None) -> LayerSetting:
    """The record that a layer's energy depends on; `stored` is the tensor its result is stored as, None if nowhere."""
    first = graph.tensors[layer.inputs[0]]
    dims = layer.loop_dims
    if layer.weight is not None:
        weight_bits, weight_density, channels = layer.weight_bits, layer.weight_density, dims.K * dims.G
    else:
        second = graph.tensors[layer.inputs[1]]
        weight_bits, weight_density, channels = second.bits, second.density, 0
    words, bits, density = (0, 16, 1.0) if stored is None else (prod(stored.shape), stored.bits, stored.density)
    return LayerSetting(
        dims, layer.weight is not None, first.bits, weight_bits, first.density, weight_density, layer.nm_pattern, words, bits, density, channels
    )  # fmt: skip


def one_step_facts(graph: LayerGraph, step: Step, biases: frozenset[str]) -> StepFacts:
    """Facts of one step of the schedule."""
    tensors = graph.tensors
    ops = lookups = 0.0
    own: list[float] = []
    for i in step.nodes:
        more_ops, more_lookups = node_work(graph, step, i)
        ops += more_ops
        lookups += more_lookups
        own.append(0.0 if step.layers else more_ops + more_lookups)
    reads = []
    for read in step.reads:
        found = read_facts(graph, step, read, biases)
        if found is not None:
            reads.append(found)
    layers = []
    for i, (first, second) in zip(step.layers, step.inputs, strict=True):
        stored = tensors[step.writes[0][1]] if i == step.head and step.writes else None
        layers.append((layer_setting(graph, graph.layers[i], stored), first, second))
    writes: list[Stored] = []
    output = -1
    if step.layers and step.writes:
        output = step.writes[0][2]
        extra = step.writes[1:]
    else:
        extra = step.writes
    for i, name, storage in extra:
        info = tensors[name]
        place = step.nodes.index(i)
        writes.append(Stored(prod(info.shape), info.bits, info.density, storage, False, place))
    return StepFacts(tuple(layers), output, ops, lookups, tuple(own), tuple(reads), tuple(writes))
