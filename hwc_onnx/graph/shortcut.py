"""What is added to a layer's output: the shortcut of a residual block, through which a layer sees what the blocks before it got wrong.

In a network that is compressed layer after layer, the stream y + s of a block errs by the error of y and by that of s. A layer
whose output y' goes nowhere else can make up for both: its target is y + (s - s'), with s' the shortcut as the compressed
network computes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from hwc_onnx.graph.external import tensor_values
from hwc_onnx.graph.layer_graph import Layer, LayerGraph, Node


@dataclass(frozen=True)
class Shortcut:
    """The other operand of the Add that alone reads a layer's output: the Add's `key` and the `position` of the operand."""

    key: str
    position: int

    def read_in(self, proto: onnx.ModelProto) -> str:
        """The operand's name in `proto`, which may be a rewritten model: there it is the dequantized one."""
        node = next(node for node in proto.graph.node if self.key in node.output)
        return str(node.input[self.position])


class Shortcuts:
    """Finds the shortcuts of one model's layers."""

    def __init__(self, graph: LayerGraph) -> None:
        self._graph = graph
        self._producers: Mapping[str, Node] = {name: node for node in graph.nodes for name in node.outputs}
        self._readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)

    def of(self, layer: Layer, unsettled: Collection[str]) -> Shortcut | None:
        """The shortcut of `layer`; None where it has none, or one that a layer of `unsettled` (by key) has a part in."""
        output = self._output(layer)
        node = self._sum(layer)
        if node is None:
            return None
        position = 1 - node.inputs.index(output)
        other = node.inputs[position]
        tensors = self._graph.tensors
        if other == output or other not in self._producers or tensors[other].shape != tensors[output].shape:
            return None
        return None if self._behind(other) & set(unsettled) else Shortcut(node.key, position)

    def _output(self, layer: Layer) -> str:
        """The layer's output with its bias."""
        following = self._readers.get(layer.key, [])
        with_bias = len(following) == 1 and following[0].op_type == "Add" and layer.bias in following[0].inputs
        return following[0].key if with_bias else layer.key

    def _sum(self, layer: Layer) -> Node | None:
        """The Add that alone reads the layer's output."""
        output = self._output(layer)
        following = self._readers.get(output, [])
        alone = len(following) == 1 and following[0].op_type == "Add" and output not in self._graph.outputs
        return following[0] if alone else None

    def _made_by(self, tensor: str) -> str | None:
        """The key of the node that makes a tensor, before its bias."""
        node = self._producers.get(tensor)
        if node is not None and node.op_type == "Add":
            made = [name for name in node.inputs if name in self._producers]
            node = self._producers[made[0]] if len(made) == 1 else node
        return None if node is None else node.key

    def reader(self, layer: Layer, shortcut: Shortcut | None) -> Node | None:
        """The node that alone reads the output of `layer`, or its sum with a shortcut."""
        output = self._output(layer) if shortcut is None else shortcut.key
        following = self._readers.get(output, [])
        return following[0] if len(following) == 1 and output not in self._graph.outputs else None

    def ordered(self, layers: Sequence[Layer]) -> list[Layer]:
        """`layers` in an order in which what each reads is settled before it, and of two that are added together the one with fewer
        inputs comes first: the other can make up for more.
        """
        order = list(layers)
        places = {layer.key: layer for layer in layers}
        for layer in layers:
            node = self._sum(layer)
            others = [] if node is None else [self._made_by(name) for name in node.inputs]
            for other in others:
                if other is None or other not in places or other == layer.key:
                    continue
                first, later = order.index(places[other]), order.index(layer)
                between = {one.key for one in order[first:later]}
                if first < later and _inputs(layer) < _inputs(places[other]) and not between & self._behind(layer.key):
                    order.insert(first, order.pop(later))
        return order

    def _behind(self, tensor: str) -> set[str]:
        """The keys of all nodes that `tensor` is computed from."""
        found: set[str] = set()
        todo = [tensor]
        while todo:
            node = self._producers.get(todo.pop())
            if node is not None and node.key not in found:
                found.add(node.key)
                todo += node.inputs
        return found


def clip_bounds(proto: onnx.ModelProto, node: Node) -> tuple[float, float] | None:
    """The bounds of a Clip; None where they are not constants of one element."""
    given = {tensor.name: tensor for tensor in proto.graph.initializer}
    bounds = [float(node.attributes.get("min", -np.inf)), float(node.attributes.get("max", np.inf))]
    for place, name in enumerate(node.inputs[1:3]):
        if name:
            if name not in given or tensor_values(given[name]).size != 1:
                return None
            bounds[place] = float(tensor_values(given[name]).reshape(-1)[0])
    return bounds[0], bounds[1]


def _inputs(layer: Layer) -> int:
    """Products that are added up to one output of a layer."""
    dims = layer.loop_dims
    return dims.C * dims.FX * dims.FY
