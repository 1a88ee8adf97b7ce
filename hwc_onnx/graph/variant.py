"""Variants: the same graph with other widths, densities and channel counts, made in well under a millisecond.

A search asks for tens of thousands of variants of one graph, so everything that does not depend on the variant (which
layer touches which tensor, how often a tensor carries each channel) is worked out once per graph, and layers and
tensors that were built before are used again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import mul
from typing import Any, NamedTuple, cast

from hwc_onnx.graph.fusion import stored_output
from hwc_onnx.graph.layer_graph import FIXED, ChannelGroup, Layer, LayerGraph, Member, Node, TensorInfo
from hwc_onnx.graph.layers import loop_dims_of
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import density_of, operand_facts
from hwc_onnx.graph.zero_pattern import Pattern

Shape = tuple[int, ...]

MEMORY = 50_000
"""Remembered layers and tensors per graph; beyond it everything is forgotten at once."""


@dataclass(frozen=True)
class Setting:
    """What a variant changes.

    `weight_bits`, `weight_density`, `nm_pattern` and `algorithm` are by layer key, `group_bits` is one width per
    activation group in the graph's order, `activation_density` is by tensor, `kept` is the number of channels left by
    root of a channel group (groups that are not named keep all).
    """

    weight_bits: Mapping[str, int]
    weight_density: Mapping[str, float]
    group_bits: Sequence[int]
    activation_density: Mapping[str, float] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    nm_pattern: Mapping[str, Pattern] = field(default_factory=dict)
    algorithm: Mapping[str, str] = field(default_factory=dict)


def _times(member: Member, group: ChannelGroup) -> tuple[int, ...]:
    """How often a member carries one channel of each part."""
    counts = [0] * len(group.part_sizes)
    for channel in member.index:
        part = FIXED if channel < 0 else group.parts[channel] if group.parts else 0
        if part != FIXED:
            counts[part] += 1
    return tuple(count // size for count, size in zip(counts, group.part_sizes, strict=True))


class Part(NamedTuple):
    """A part of a graph: positions of its layers, and names of tensors."""

    layers: frozenset[int]
    tensors: frozenset[str]


def variant(graph: LayerGraph, setting: Setting, part: Part | None = None) -> LayerGraph:
    """The layer graph under `setting`. Channel and activation groups stay those of `graph`.

    With `part`, only what it names is sure to follow the setting: for callers that look at nothing else.
    """
    return _maker(graph, part)(setting)


def _maker(graph: LayerGraph, part: Part | None) -> _Maker:
    # not a field: it is derived, and two equal graphs must stay equal
    makers: dict[Part | None, _Maker] = graph.__dict__.setdefault("_variant_makers", {})
    found = makers.get(part)
    if found is None:
        found = makers[part] = _Maker(graph, part)
    return found


@dataclass(frozen=True)
class _Place:
    """A layer with its node's position and the names of what it touches."""

    layer: Layer
    node: int
    first: str
    second: str
    stored: str


class _Maker:
    """Everything about one graph that does not depend on the variant."""

    def __init__(self, graph: LayerGraph, part: Part | None = None) -> None:
        self.graph = graph
        self.changing = tuple(range(len(graph.layers)) if part is None else sorted(part.layers))
        read = {name for i in self.changing for name in (*graph.layers[i].inputs, graph.layers[i].key)}
        read |= {layer.weight for i in self.changing if (layer := graph.layers[i]).weight is not None}

        def needed(name: str) -> bool:
            return part is None or name in part.tensors or name in read or name in stored

        stored: set[str] = set()
        position = {node.key: index for index, node in enumerate(graph.nodes)}
        output_of = {node.key: node.outputs[0] for node in graph.nodes}
        self.places = [
            _Place(
                layer,
                position[layer.key],
                graph.nodes[position[layer.key]].inputs[0],
                graph.nodes[position[layer.key]].inputs[1],
                stored_output(layer.key, graph.fused, output_of),
            )
            for layer in graph.layers
        ]
        stored |= {self.places[i].stored for i in self.changing}
        stored |= {name for i in self.changing for name in (self.places[i].first, self.places[i].second)}
        self.groups = [
            (place, group, names)
            for place, group in enumerate(graph.activation_groups)
            if (names := tuple(name for name in group.tensors if needed(name)))
        ]
        grouped = {name for group in graph.activation_groups for name in group.tensors}
        self.ungrouped = [
            name
            for name, info in graph.tensors.items()
            if name not in grouped and info.kind != "constant" and needed(name)
        ]
        self.weight_of = {
            layer.weight: layer.key for layer in graph.layers if layer.weight is not None and needed(layer.weight)
        }
        # how often each tensor axis carries one channel of each part of the group
        self.carried = {
            group.root: [(m.tensor, m.axis, _times(m, group)) for m in group.members if needed(m.tensor)]
            for group in graph.channel_groups
            if group.locked_because is None
        }
        self.group = {group.root: group for group in graph.channel_groups}
        self.memory: dict[Hashable, Any] = {}
        self.removed: dict[tuple[str, int], tuple[tuple[str, int, int], ...]] = {}

    def __call__(self, setting: Setting) -> LayerGraph:
        if len(self.memory) > MEMORY:
            self.memory.clear()
        base = self.graph.tensors
        shapes = self._shapes(setting.kept)
        tensors = dict(base)
        densities = setting.activation_density
        for position, group, names in self.groups:
            bits = setting.group_bits[position]
            for name in names:
                old = base[name]
                tensors[name] = self._tensor(
                    old, shapes.get(name, old.shape), bits, density_of(name, group, densities, old.density)
                )
        for name in self.ungrouped:
            if name in densities:
                old = base[name]
                tensors[name] = self._tensor(old, shapes.get(name, old.shape), old.bits, densities[name])
        for name, key in self.weight_of.items():
            old = base[name]
            tensors[name] = self._tensor(
                old, shapes.get(name, old.shape), setting.weight_bits[key], setting.weight_density.get(key, old.density)
            )
        for name, shape in shapes.items():
            now = tensors[name]
            if now.shape != shape:
                tensors[name] = self._tensor(now, shape, now.bits, now.density)
        nodes = self.graph.nodes
        if shapes:
            nodes = self._nodes(tensors, shapes)
        layers = list(self.graph.layers)
        for i in self.changing:
            place = self.places[i]
            layers[i] = self._layer(place, nodes[place.node], tensors, shapes, setting)
        return LayerGraph(
            layers=tuple(layers),
            nodes=nodes,
            tensors=tensors,
            inputs=self.graph.inputs,
            outputs=self.graph.outputs,
            opset=self.graph.opset,
            source_digest=self.graph.source_digest,
            channel_groups=self.graph.channel_groups,
            activation_groups=self.graph.activation_groups,
            fused=self.graph.fused,
            unmodelled=self.graph.unmodelled,
            bodies=self.graph.bodies,
        )

    def _shapes(self, kept: Mapping[str, int]) -> dict[str, Shape]:
        """The shapes that change: each removed channel takes its positions from every axis that carries it."""
        changed: dict[str, list[int]] = {}
        for root, left in kept.items():
            group = self.group[root]
            if left == group.channels:
                continue
            for name, axis, fewer in self._removed(group, left):
                shape = changed.get(name)
                if shape is None:
                    shape = changed[name] = list(self.graph.tensors[name].shape)
                shape[axis] -= fewer
        return {name: tuple(shape) for name, shape in changed.items()}

    def _removed(self, group: ChannelGroup, left: int) -> tuple[tuple[str, int, int], ...]:
        """What a group with `left` channels takes away: tensor, axis, positions."""
        found = self.removed.get((group.root, left))
        if found is None:
            gone = [size - kept for size, kept in zip(group.part_sizes, group.kept_of_parts(left), strict=True)]
            taken = ((name, axis, sum(map(mul, gone, times))) for name, axis, times in self.carried[group.root])
            found = self.removed[group.root, left] = tuple(taken)
        return found

    def _loop_dims(self, node: Node, first: Shape, second: Shape, output: Shape) -> LoopDims:
        """Loop dimensions of a layer's node, which the shapes decide: few of them meet many widths and densities."""
        key = (node.key, first, second, output)
        found = self.memory.get(key)
        if found is None:
            found = self.memory[key] = loop_dims_of(node, first, second, output)
        return cast(LoopDims, found)

    def _tensor(self, old: TensorInfo, shape: Shape, bits: int, density: float) -> TensorInfo:
        key = (old.name, shape, bits, density)
        found = self.memory.get(key)
        if found is None:
            found = self.memory[key] = TensorInfo(old.name, shape, old.dtype, old.kind, bits, density)
        return found

    def _nodes(self, tensors: Mapping[str, TensorInfo], shapes: Mapping[str, Shape]) -> tuple[Node, ...]:
        """Grouped convolutions whose channels went say how many groups are left."""
        nodes: list[Node] | None = None
        for place in self.places:
            dims = place.layer.loop_dims
            if dims.G > 1 and place.layer.op_type in ("Conv", "ConvTranspose"):
                side = place.first if place.layer.op_type == "Conv" else place.layer.key
                groups = tensors[side].shape[1] // tensors[place.second].shape[1]
                old = self.graph.nodes[place.node]
                if old.attributes.get("group", 1) != groups:
                    key = (old.key, groups)
                    found = self.memory.get(key)
                    if found is None:
                        found = self.memory[key] = replace(old, attributes={**old.attributes, "group": groups})
                    nodes = list(self.graph.nodes) if nodes is None else nodes
                    nodes[place.node] = found
        return self.graph.nodes if nodes is None else tuple(nodes)

    def _layer(
        self,
        place: _Place,
        node: Node,
        tensors: Mapping[str, TensorInfo],
        shapes: Mapping[str, Shape],
        setting: Setting,
    ) -> Layer:
        old = place.layer
        facts = operand_facts(old, tensors, place.stored)
        pattern = setting.nm_pattern.get(old.key)
        algorithm = setting.algorithm.get(old.key, "none")
        first, second, output = tensors[place.first].shape, tensors[place.second].shape, tensors[old.key].shape
        key = (old.key, *facts.values(), pattern, algorithm, first, second, output)
        found = self.memory.get(key)
        if found is None:
            dims = self._loop_dims(node, first, second, output) if shapes else old.loop_dims
            weight_shape = tensors[old.weight if old.weight is not None else old.inputs[1]].shape
            found = self.memory[key] = replace(
                old, **facts, loop_dims=dims, weight_shape=weight_shape, nm_pattern=pattern, algorithm=algorithm, weight_sum=None
            )
        return found
