"""Channel groups: everything that must lose the same channels together.

Positions that stand for the same channel are found as connected components of the links in `axis_rules`; the channels
of one layer's output, and of every layer tied to it, form one group. A group is locked when one of its axes is locked,
or when some tensor carries its channels unevenly, since then the sizes after removal would depend on the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.axis_graph import AxisGraph
from hwc_onnx.graph.axis_rules import add_node
from hwc_onnx.graph.layer_graph import ChannelGroup, Layer, Member, Node

Labels = NDArray[np.int64]


def output_channel_axis(layer: Layer, rank: int) -> int:
    """The axis of a layer's output tensor (of that rank) that its output channels lie on."""
    if layer.op_type in ("Conv", "ConvTranspose"):
        return 1
    left = layer.op_type == "MatMul" and layer.output_axis == len(layer.weight_shape) - 2
    return rank - 2 if left else rank - 1


def channel_groups(
    nodes: Sequence[Node],
    layers: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> tuple[ChannelGroup, ...]:
    """The groups in order of their first producing layer; every layer with weights produces exactly one."""
    graph = AxisGraph(shapes, constants, {layer.key: layer for layer in layers})
    for node in nodes:
        add_node(graph, node)
    for name in outputs:
        for axis in range(len(shapes.get(name, ()))):
            graph.lock((name, axis), f"reach output `{name}`")
    for name in inputs:
        for axis in range(len(shapes.get(name, ()))):
            graph.lock((name, axis), f"belong to input `{name}`")
    producers = {
        layer.key: (layer.key, output_channel_axis(layer, len(shapes[layer.key])))
        for layer in layers
        if layer.weight is not None and len(layer.weight_shape) > 1
    }
    for place in producers.values():
        graph.vertices(*place)
    graph.settle_merges(producers.values())
    labels = _components(graph)
    group_of_label, families = _families(graph, producers, labels)
    return tuple(
        _group(graph, family, producers, labels, group_of_label, number, layers)
        for number, family in enumerate(families)
    )


def _components(graph: AxisGraph) -> Labels:
    """The smallest vertex number of each vertex's connected component (hooking and pointer jumping)."""
    labels = np.arange(graph.size, dtype=np.int64)
    if not graph.edges:
        return labels
    left = np.concatenate([edge[0] for edge in graph.edges])
    right = np.concatenate([edge[1] for edge in graph.edges])
    while True:
        first, second = labels[left], labels[right]
        if (first == second).all():
            return labels
        np.minimum.at(labels, first, second)
        np.minimum.at(labels, second, first)
        while (labels != labels[labels]).any():
            labels = labels[labels]


def _families(
    graph: AxisGraph, producers: Mapping[str, tuple[str, int]], labels: Labels
) -> tuple[Labels, list[list[str]]]:
    """Join the components that one producer's output spans; returns each component's group (-1: none) and the groups."""
    owner = np.full(int(labels.max(initial=-1)) + 1, -1, dtype=np.int64)
    families: list[list[str]] = []
    for key, axis in producers.items():
        own = np.unique(labels[graph.vertices(*axis)])
        met = sorted(set(owner[own].tolist()) - {-1})
        target = met[0] if met else len(families)
        if not met:
            families.append([])
        for other in met[1:]:
            families[target] += families[other]
            families[other] = []
            owner[owner == other] = target
        families[target].append(key)
        owner[own] = target
    numbers = [number for number, family in enumerate(families) if family]
    renumbered = np.full(len(families) + 1, -1, dtype=np.int64)
    renumbered[numbers] = np.arange(len(numbers))
    order = {key: place for place, key in enumerate(producers)}
    return renumbered[owner], [sorted(families[number], key=order.__getitem__) for number in numbers]


def _group(
    graph: AxisGraph,
    family: Sequence[str],
    producers: Mapping[str, tuple[str, int]],
    labels: Labels,
    group_of_label: Labels,
    number: int,
    layers: Sequence[Layer],
) -> ChannelGroup:
    # channels are numbered by their first appearance in the producers' outputs
    seen = np.concatenate([labels[graph.vertices(*producers[key])] for key in family])
    _, first = np.unique(seen, return_index=True)
    channel_of_label = np.full(len(group_of_label), -1, dtype=np.int64)
    channel_of_label[seen[np.sort(first)]] = np.arange(len(first))
    members = []
    uneven = None
    for tensor, axis in graph.base:
        index = channel_of_label[labels[graph.vertices(tensor, axis)]]
        if (index < 0).all():
            continue
        members.append(Member(tensor, axis, tuple(index.tolist())))
        counts = np.bincount(index[index >= 0], minlength=len(first))
        if counts.min() != counts.max():
            uneven = uneven or f"are carried only in part by `{tensor}`"
    axes = {(member.tensor, member.axis) for member in members}
    reason = next((why for axis, why in graph.locks if axis in axes), uneven)
    root = family[0]
    return ChannelGroup(
        root=root,
        channels=len(first),
        members=tuple(members),
        producers=tuple(family),
        consumers=tuple(_consumers(layers, axes)),
        locked_because=None if reason is None else f"channels of `{root}` {reason}",
    )


def _consumers(layers: Sequence[Layer], axes: set[tuple[str, int]]) -> list[str]:
    found = []
    for layer in layers:
        if layer.weight is None:
            continue
        grouped = layer.op_type == "Conv" and layer.loop_dims.G > 1
        if ((layer.inputs[0], 1) if grouped else (layer.weight, layer.input_axis)) in axes:
            found.append(layer.key)
    return found
