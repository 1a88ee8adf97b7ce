"""Which tensors may be scaled channel by channel without any change to what a network computes.

A domain is a set of tensors joined by positively homogeneous nodes, f(s x) = s f(x) for s > 0, that keep channels apart
(Relu, pooling, Add of tensors of the domain, Concat, Reshape ...). Where a channel of all of them is multiplied by s, the
weights that make it are multiplied by s (rows of the layer before, or a normalization's scale and shift) and the weights
that read it by 1 / s. A Clip with an upper bound is homogeneous only below the bound; the domain then has a `ceiling`.

Source: Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction (ICCV 2019), section 4.1,
there for two layers with a Relu between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import ChannelGroup, Layer, LayerGraph, Node

Index = NDArray[np.int64]

HOMOGENEOUS = frozenset(
    "Relu LeakyRelu PRelu MaxPool AveragePool GlobalAveragePool GlobalMaxPool ReduceMean ReduceMax ReduceMin ReduceSum "
    "Identity Dropout Reshape Flatten Transpose Squeeze Unsqueeze Slice Split Gather Resize Upsample Concat DepthToSpace "
    "SpaceToDepth Tile Expand Add Sub Sum Max Min Mean".split()
)
SUMS = frozenset(("Add", "Sub", "Sum", "Max", "Min", "Mean"))
NORMALIZATIONS = frozenset(("LayerNormalization", "BatchNormalization", "InstanceNormalization"))
BODIES = frozenset(("If", "Loop", "Scan"))


@dataclass(frozen=True)
class Place:
    """One axis of a tensor: `index[p]` is the domain's channel at position p, -1 where there is none.

    `power` is 1 where the tensor is multiplied by the channel's factor, -1 where it is divided.
    """

    tensor: str
    axis: int
    index: Index
    power: int = 1


@dataclass(frozen=True)
class Domain:
    """Tensors that share one factor per channel, the constants that change with it, and the layers that read it."""

    root: str
    channels: int
    tensors: tuple[Place, ...]
    constants: tuple[Place, ...]
    readers: tuple[str, ...]
    ceiling: float | None


def scale_domains(graph: LayerGraph, constants: Mapping[str, NDArray[np.generic]]) -> list[Domain]:
    """All domains of a model that have weights on both sides.

    Args:
        graph: its layers, nodes and channel groups (locked groups have no domains).
        constants: its initializers.
    """
    if any(node.op_type in BODIES for node in graph.nodes):
        return []
    counts: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.inputs:
            counts[name] = counts.get(name, 0) + 1
    shared = {name for name, count in counts.items() if count > 1} | set(graph.outputs)
    layers = {layer.key: layer for layer in graph.layers}
    found: list[Domain] = []
    for group in graph.channel_groups:
        if group.locked_because is None:
            found += _Builder(group, graph, layers, constants, shared).domains()
    return found


class _Builder:
    """The domains of one channel group."""

    def __init__(
        self,
        group: ChannelGroup,
        graph: LayerGraph,
        layers: Mapping[str, Layer],
        constants: Mapping[str, NDArray[np.generic]],
        shared: Set[str],
    ) -> None:
        self.group, self.layers, self.constants, self.shared = group, layers, constants, shared
        self.places = {(m.tensor, m.axis): np.asarray(m.index, dtype=np.int64) for m in group.members}
        self.axis = {m.tensor: m.axis for m in group.members if m.tensor not in constants}
        self.parent = {name: name for name in self.axis}
        self.fixed: set[str] = {name for name in (*graph.inputs, *graph.outputs) if name in self.axis}
        self.made: list[tuple[str, Place]] = []
        self.read: list[tuple[str, Place, str]] = []
        self.ceilings: list[tuple[str, float]] = []
        for node in graph.nodes:
            self._take(node)

    def domains(self) -> list[Domain]:
        """Those with constants on both sides and nothing that forbids a factor."""
        fixed = {self._root(name) for name in self.fixed}
        found = []
        for root in sorted({self._root(name) for name in self.axis} - fixed):
            made = [place for name, place in self.made if self._root(name) == root]
            read = [(place, key) for name, place, key in self.read if self._root(name) == root]
            ceilings = [bound for name, bound in self.ceilings if self._root(name) == root]
            if not made or not read or len(set(ceilings)) > 1:
                continue
            tensors = [
                Place(name, axis, self.places[name, axis]) for name, axis in self.axis.items() if self._root(name) == root
            ]
            places = (*made, *(place for place, _ in read))
            keys = tuple(dict.fromkeys(key for _, key in read))
            ceiling = ceilings[0] if ceilings else None
            found.append(Domain(root, self.group.channels, tuple(tensors), places, keys, ceiling))
        return found

    def _root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def _join(self, names: Iterable[str]) -> None:
        roots = [self._root(name) for name in names]
        for root in roots[1:]:
            self.parent[self._root(root)] = self._root(roots[0])

    def _take(self, node: Node) -> None:
        """What one node says about its tensors."""
        read = [name for name in node.inputs if name in self.axis]
        made = [name for name in node.outputs if name in self.axis]
        if not read and not made:
            return
        layer = self.layers.get(node.key)
        if layer is not None:
            allowed = self._layer(node, layer, read, made)
        elif node.op_type in NORMALIZATIONS:
            self.fixed.update(read)
            allowed = self._scaled_by(made, node.inputs[1:3])
        elif node.op_type in ("Mul", "Div") and len(read) == len(made) == 1 and node.inputs[0] != node.inputs[1]:
            allowed = self._product(node, read[0], made[0])
        else:
            allowed = self._passes(node, read, made)
        if not allowed:
            self.fixed.update((*read, *made))

    def _layer(self, node: Node, layer: Layer, read: list[str], made: list[str]) -> bool:
        if layer.weight is None or layer.state_weight is not None:
            return False
        depthwise = layer.op_type == "Conv" and layer.loop_dims.G > 1 and layer.weight_shape[1] == 1
        if layer.loop_dims.G > 1 and not depthwise:
            return False
        axis = layer.output_axis if depthwise else layer.input_axis
        if read and not self._divided_by(read[0], layer.weight, node.key, axis):
            return False
        bias = [] if layer.bias is None or layer.op_type == "MatMul" else [layer.bias]
        return not made or (self._scaled_by(made, [layer.weight], layer.output_axis) and self._scaled_by(made, bias))

    def _product(self, node: Node, read: str, made: str) -> bool:
        """A product with a constant: one number passes, a number per channel lets the factor change."""
        factor = node.inputs[1] if node.inputs[0] == read else node.inputs[0]
        if node.op_type == "Div" and factor == node.inputs[0]:
            return False
        if factor in self.constants and self.constants[factor].size == 1:
            self._join((read, made))
            return True
        return node.op_type == "Mul" and self._scaled_by([made], [factor]) and self._divided_by(read, factor, node.key)

    def _passes(self, node: Node, read: list[str], made: list[str]) -> bool:
        """A node that is homogeneous, with all its tensors in one domain."""
        bound = self._bound(node) if node.op_type == "Clip" else None
        whole = len(made) == sum(name != "" for name in node.outputs)
        if not whole or not read or not (node.op_type in HOMOGENEOUS or bound is not None or self._pads_zero(node)):
            return False
        if node.op_type in SUMS:
            others = [name for name in node.inputs if name not in self.axis]
            if not self._scaled_by(made, others):
                return False
        self._join((*read, *made))
        if bound is not None and np.isfinite(bound):
            self.ceilings.append((made[0], bound))
        return True

    def _bound(self, node: Node) -> float | None:
        """The upper bound of a Clip that keeps the sign of what passes; None where it does not."""
        bounds = [self._scalar(node, place, at) for place, at in ((1, -np.inf), (2, np.inf))]
        low, high = bounds
        return high if low is not None and high is not None and low in (0.0, -np.inf) and high > 0 else None

    def _scalar(self, node: Node, place: int, absent: float) -> float | None:
        if len(node.inputs) <= place or not node.inputs[place]:
            return absent
        value = self.constants.get(node.inputs[place])
        return None if value is None or value.size != 1 else float(value.reshape(()))

    def _pads_zero(self, node: Node) -> bool:
        if node.op_type != "Pad":
            return False
        mode = node.attributes.get("mode", "constant")
        return mode not in ("constant", b"constant") or self._scalar(node, 2, 0.0) == 0.0

    def _scaled_by(self, made: list[str], names: Iterable[str], axis: int | None = None) -> bool:
        """Note the constants that the tensors `made` grow with; False where one cannot change."""
        places = [self._place(name, axis, 1) for name in names if name]
        if any(place is None for place in places):
            return False
        self.made += [(name, place) for name in made[:1] for place in places if place is not None]
        self._join(made)
        return True

    def _divided_by(self, name: str, constant: str, key: str, axis: int | None = None) -> bool:
        """Note the constant that makes up for the factor of tensor `name`; False where it cannot change."""
        place = self._place(constant, axis, -1)
        if place is None:
            return False
        self.read.append((name, place, key))
        return True

    def _place(self, name: str, axis: int | None, power: int) -> Place | None:
        """The constant's axis that lies along the group (its only one for None); None where it is shared or has none."""
        axes = [at for tensor, at in self.places if tensor == name]
        if name not in self.constants or name in self.shared or not axes or (axis is None and len(axes) > 1):
            return None
        at = axes[0] if axis is None else axis
        return Place(name, at, self.places[name, at], power) if at in axes else None
