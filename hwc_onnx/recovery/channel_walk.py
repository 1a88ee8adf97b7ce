"""Where the output channels of a layer go, element by element, through nodes that only move values.

Channel groups treat a head as one channel; scaling may treat each of its channels apart. So the numbers of a layer's output
channels are sent through the network as values: every Reshape, Transpose, Split ... moves them as it moves activations, and
what arrives at a product or at another layer says which channel is met there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import LayerGraph, Node

Index = NDArray[np.int64]
Constants = Mapping[str, NDArray[np.generic]]

MOST_ELEMENTS = 1 << 24
"""Activations of more elements are not followed."""
RESHAPES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"))


@dataclass
class Walk:
    """What was met on the way: `tensors` by name with the channel of each element, `added` constants with the tensor that
    they are added to, and the `ends`: nodes that do more than move, with the input's name.
    """

    tensors: dict[str, Index] = field(default_factory=dict)
    added: list[tuple[str, str]] = field(default_factory=list)
    ends: list[tuple[Node, str]] = field(default_factory=list)


class Walker:
    """Walks of one graph."""

    def __init__(self, graph: LayerGraph, constants: Constants) -> None:
        self._graph, self._constants = graph, constants
        self._readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self._readers.setdefault(name, []).append(node)

    def walk(self, tensor: str, channels: Index) -> Walk:
        """Follow a tensor whose elements are of the given channels to where it is more than moved."""
        found = Walk({tensor: channels})
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            for node in self._readers.get(name, []):
                moved = list(self._moved(node, name, found.tensors[name]))
                if not moved or any(values.shape != self._shape(output) for output, values in moved):
                    found.ends.append((node, name))
                    continue
                if node.op_type == "Add":
                    found.added.append((next(other for other in node.inputs if other != name), name))
                for output, values in moved:
                    found.tensors[output] = values
                    waiting.append(output)
        return found

    def _shape(self, name: str) -> tuple[int, ...] | None:
        info = self._graph.tensors.get(name)
        return None if info is None else info.shape

    def _moved(self, node: Node, name: str, values: Index) -> Iterator[tuple[str, Index]]:
        """The outputs of a node that moves tensor `name`, with their channels; nothing for any other node."""
        output = node.outputs[0]
        info = self._graph.tensors.get(output)
        if info is None or prod(info.shape) > MOST_ELEMENTS:
            return
        others = [self._constants.get(other) for other in node.inputs if other not in (name, "")]
        known = [value for value in others if value is not None]
        if len(known) < len(others) or node.inputs.count(name) != 1:
            return
        if node.op_type in RESHAPES and prod(info.shape) == values.size:
            yield output, values.reshape(info.shape)
        elif node.op_type == "Transpose":
            yield output, np.transpose(values, node.attributes.get("perm"))
        elif node.op_type == "Expand":
            yield output, np.broadcast_to(values, info.shape)
        elif node.op_type == "Tile":
            yield output, np.tile(values, known[0].astype(np.int64))
        elif node.op_type == "Split":
            axis = int(node.attributes.get("axis", 0))
            shapes = [self._shape(part) for part in node.outputs]
            if all(shape is not None and len(shape) == values.ndim for shape in shapes):
                sizes = [shape[axis] for shape in shapes if shape is not None]
                yield from zip(node.outputs, np.split(values, np.cumsum(sizes)[:-1], axis), strict=True)
        elif node.op_type == "Gather" and node.inputs[0] == name:
            yield output, np.take(values, known[0].astype(np.int64), int(node.attributes.get("axis", 0)))
        elif node.op_type == "Slice" and node.inputs[0] == name and len(node.inputs) > 2:
            yield output, values[self._slices(values.ndim, node)]
        elif node.op_type == "Add" and values.shape == info.shape:
            yield output, values
        elif node.op_type in ("Mul", "Div") and known[0].size == 1 and (node.op_type == "Mul" or node.inputs[0] == name):
            yield output, values

    def _slices(self, rank: int, node: Node) -> tuple[slice, ...]:
        def numbers(place: int, absent: list[int]) -> list[int]:
            name = node.inputs[place] if len(node.inputs) > place else ""
            return self._constants[name].astype(np.int64).reshape(-1).tolist() if name else absent

        starts, ends = numbers(1, []), numbers(2, [])
        axes, steps = numbers(3, list(range(len(starts)))), numbers(4, [1] * len(starts))
        found = [slice(None)] * rank
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            # an end before the first element means "to the front" when going backwards
            stop = None if step < 0 and end < -(1 << 30) else end
            found[axis] = slice(start, stop, step)
        return tuple(found)



def along(values: Index, axis: int) -> Index | None:
    """The channel at each position along `axis`; None where it is not the same everywhere else."""
    flat = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return flat[:, 0].copy() if flat.size and (flat == flat[:, :1]).all() else None
