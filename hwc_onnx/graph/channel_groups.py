"""Channel groups: everything that must lose the same channels together.

Positions that stand for the same channel are found as connected components of the links in `axis_rules` and
`axis_moves`; the channels of one layer's output, and of every layer tied to it, form one group. Where some tensor has
only a part of the channels (a Split, a shuffle), the channels fall into parts that all tensors treat alike; each part
loses its share, so that sizes follow from how many channels are left. A group is locked when one of its axes is.

Some nodes leave open which way channels go (`axis_graph`). The first way of each is taken; where it leaves a group that
cannot lose anything, the next one is tried, and what lets more weights go is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.axis_graph import AxisGraph
from hwc_onnx.graph.axis_rules import add_node
from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, Layer, Member, Node

Labels = NDArray[np.int64]

ROUNDS = 6
"""How often the nodes that leave the way open are asked again."""


def output_channel_axis(layer: Layer, rank: int) -> int:
    """The axis of a layer's output tensor (of that rank) that its output channels lie on."""
    if layer.op_type in ("Conv", "ConvTranspose"):
        return 1
    left = layer.op_type == "MatMul" and layer.output_axis == len(layer.weight_shape) - 2
    return rank - 2 if left else rank - 1


@dataclass(frozen=True)
class _Model:
    """What the groups are read off."""

    nodes: Sequence[Node]
    layers: Sequence[Layer]
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Any]
    inputs: Sequence[str]
    outputs: Sequence[str]


def channel_groups(
    nodes: Sequence[Node],
    layers: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> tuple[ChannelGroup, ...]:
    """The groups in order of their first producing layer; every layer with weights produces exactly one."""
    model = _Model(nodes, layers, shapes, constants, inputs, outputs)
    chosen: dict[str, int] = {}
    best, graph = _groups(model, chosen)
    free = _free(model, best)
    groups = best
    for _ in range(ROUNDS):
        turned = {
            key: chosen.get(key, 0) + 1
            for group in groups
            if group.locked_because is not None or group.fixed
            for key in _choices_of(graph, group)
        }
        if not turned:
            break
        chosen = {**chosen, **turned}
        groups, graph = _groups(model, chosen)
        now = _free(model, groups)
        if now > free:
            best, free = groups, now
    return best


def _choices_of(graph: AxisGraph, group: ChannelGroup) -> list[str]:
    """The nodes of a group that could send its channels another way."""
    axes = {(member.tensor, member.axis) for member in group.members}
    return list(dict.fromkeys(key for axis, key in graph.chosen_at if axis in axes))


def _free(model: _Model, groups: Sequence[ChannelGroup]) -> tuple[float, float]:
    """Elements of constants that lie on a position which can go; then, where that is equal, counted once for each axis.

    Where all inputs of an attention can go, no element is left for its heads to free, but they are a second way to prune.
    """
    stays: dict[str, float] = {}
    ways = 0.0
    for group in groups:
        if group.locked_because is None:
            for member in group.members:
                if member.tensor in model.constants:
                    index = np.asarray(member.index)
                    free = index >= 0
                    if group.fixed:
                        free &= np.asarray(group.parts)[index] != FIXED
                    stays[member.tensor] = stays.get(member.tensor, 1.0) * (1.0 - float(free.mean()))
                    ways += prod(model.shapes[member.tensor]) * float(free.mean())
    return sum(prod(model.shapes[name]) * (1.0 - share) for name, share in stays.items()), ways


def _groups(model: _Model, chosen: Mapping[str, int]) -> tuple[tuple[ChannelGroup, ...], AxisGraph]:
    shapes, layers = model.shapes, model.layers
    graph = AxisGraph(shapes, model.constants, {layer.key: layer for layer in layers}, chosen, model.nodes)
    for node in model.nodes:
        add_node(graph, node)
    for name in model.outputs:
        for axis in range(len(shapes.get(name, ()))):
            graph.lock((name, axis), f"reach output `{name}`")
    for name in model.inputs:
        for axis in range(len(shapes.get(name, ()))):
            graph.lock((name, axis), f"belong to input `{name}`")
    producers = {
        layer.key: (layer.key, output_channel_axis(layer, len(shapes[layer.key])))
        for layer in layers
        if layer.weight is not None and len(layer.weight_shape) > 1
    }
    for place in producers.values():
        graph.vertices(*place)
    graph.settle(producers.values())
    labels = _components(graph)
    group_of_label, families = _families(graph, producers, labels)
    axes = _axes_by_group(graph, labels, group_of_label, len(families))
    reasons: dict[tuple[str, int], tuple[int, str]] = {}
    for met, (place, why) in enumerate(graph.locks):
        reasons.setdefault(place, (met, why))
    readers = _readers(layers)
    # a channel is held by a lock on any axis that carries it; others of its group may go
    locked = np.zeros(graph.size, dtype=np.bool_)
    for place in reasons:
        locked[labels[graph.vertices(*place)]] = True
    groups = tuple(
        _group(graph, family, producers, labels, axes[number], reasons, layers, readers, locked)
        for number, family in enumerate(families)
    )
    return groups, graph


def _axes_by_group(
    graph: AxisGraph, labels: Labels, group_of_label: Labels, count: int
) -> list[list[tuple[str, int]]]:
    """The axes on which each group has positions, in the order in which they were met."""
    found: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    for tensor, axis in graph.base:
        for number in np.unique(group_of_label[labels[graph.vertices(tensor, axis)]]):
            if number >= 0:
                found[number].append((tensor, axis))
    return found


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
    axes: Sequence[tuple[str, int]],
    reasons: Mapping[tuple[str, int], tuple[int, str]],
    layers: Sequence[Layer],
    readers: Mapping[tuple[str, int], Sequence[int]],
    locked: NDArray[np.bool_],
) -> ChannelGroup:
    # channels are numbered by their first appearance in the producers' outputs
    seen = np.concatenate([labels[graph.vertices(*producers[key])] for key in family])
    _, first = np.unique(seen, return_index=True)
    names = seen[np.sort(first)]
    by_name = np.argsort(names)
    members = []
    counts = []
    for tensor, axis in axes:
        here = labels[graph.vertices(tensor, axis)]
        place = np.minimum(np.searchsorted(names[by_name], here), len(names) - 1)
        index = np.where(names[by_name][place] == here, by_name[place], -1)
        members.append(Member(tensor, axis, tuple(index.tolist())))
        counts.append(np.bincount(index[index >= 0], minlength=len(names)))
    free = ~locked[names]
    reason = None
    if not free.any():
        # of several reasons, the one that was met first
        reason = min((reasons[axis] for axis in axes if axis in reasons), default=(0, None))[1]
    parts = np.full(len(names), FIXED)
    if free.any():
        _, found = np.unique(np.stack(counts)[:, free], axis=1, return_inverse=True)
        parts[free] = _in_order(found.reshape(-1))
        if parts.max() + 1 == free.sum():
            reason = "are all needed: each is used in its own way" if len(names) > 1 else "are one and cannot be fewer"
    elif reason is None:
        reason = "cannot be followed"
    root = family[0]
    return ChannelGroup(
        root=root,
        channels=len(names),
        members=tuple(members),
        producers=tuple(family),
        consumers=tuple(layers[number].key for number in sorted({n for axis in axes for n in readers.get(axis, ())})),
        locked_because=None if reason is None else f"channels of `{root}` {reason}",
        parts=() if reason is not None or not parts.any() else tuple(parts.tolist()),
    )


def _in_order(parts: Labels) -> Labels:
    """Part numbers in the order of their first channels."""
    _, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    found: Labels = ranks[inverse.reshape(-1)]
    return found


def _readers(layers: Sequence[Layer]) -> dict[tuple[str, int], list[int]]:
    """The layers, by number, that read the channels of each axis."""
    found: dict[tuple[str, int], list[int]] = {}
    for number, layer in enumerate(layers):
        if layer.weight is not None:
            grouped = layer.op_type == "Conv" and layer.loop_dims.G > 1
            axis = (layer.inputs[0], 1) if grouped else (layer.weight, layer.input_axis)
            found.setdefault(axis, []).append(number)
    return found
