"""The axis graph: which position of which axis of which tensor stands for the same channel.

It holds links between positions of (tensor, axis), and locks: axes that cannot lose positions, each with a reason a
user understands. `axis_rules` fills it operator by operator, `channel_groups` reads groups off it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer, Node

Positions = NDArray[np.int64]
Axis = tuple[str, int]


@dataclass(frozen=True)
class Merge:
    """A Reshape that turns several axes of `source` into one axis `target`.

    `digits[i][p]` is the position on axis `axes[i]` that position p of the target stands for. A position can belong to
    one of the axes only, so which one it is remains open until it is known which axis carries channels.
    """

    source: str
    axes: tuple[int, ...]
    target: Axis
    digits: tuple[Positions, ...]
    title: str


class AxisGraph:
    """Positions of axes as numbered vertices, links between them, and locks."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, Any], layers: Mapping[str, Layer]
    ) -> None:
        self.shapes = shapes
        self.constants = constants
        self.layers = layers
        self.base: dict[Axis, int] = {}
        self.size = 0
        self.edges: list[tuple[Positions, Positions]] = []
        self.locks: list[tuple[Axis, str]] = []
        self.ties: list[tuple[Axis, Axis]] = []
        self.merges: list[Merge] = []

    def vertices(self, tensor: str, axis: int) -> Positions:
        """Vertex numbers of the positions along one axis."""
        count = self.shapes[tensor][axis]
        if (tensor, axis) not in self.base:
            self.base[tensor, axis] = self.size
            self.size += count
        start = self.base[tensor, axis]
        return np.arange(start, start + count)

    def link(
        self,
        first: Axis,
        second: Axis,
        first_positions: Positions | None = None,
        second_positions: Positions | None = None,
    ) -> None:
        """State that positions (all, in order, when None) of two axes stand for the same channels."""
        left, right = self.vertices(*first), self.vertices(*second)
        left = left if first_positions is None else left[first_positions]
        right = right if second_positions is None else right[second_positions]
        if len(left) != len(right):
            self.lock(first, "change their number in a way that cannot be followed")
            self.lock(second, "change their number in a way that cannot be followed")
            return
        self.edges.append((left, right))
        self.ties.append((first, second))

    def lock(self, axis: Axis, reason: str) -> None:
        """State that no position of this axis may be removed; `reason` completes "channels of `x` ..."."""
        self.vertices(*axis)
        self.locks.append((axis, reason))

    def lock_all(self, node: Node, reason: str) -> None:
        """Lock the axes of every operand and result whose shape is known."""
        for name in dict.fromkeys((*node.inputs, *node.outputs)):
            for axis in range(len(self.shapes.get(name, ()))):
                self.lock((name, axis), reason)

    def settle_merges(self, seeds: Iterable[Axis]) -> None:
        """Link each merged axis to the one of its axes that channels reach from `seeds`; lock it when several do."""
        parent: dict[Axis, Axis] = {}

        def root(axis: Axis) -> Axis:
            while parent.setdefault(axis, axis) != axis:
                parent[axis] = parent[parent[axis]]
                axis = parent[axis]
            return axis

        for first, second in self.ties:
            parent[root(first)] = root(second)
        starts = tuple(seeds)
        for merge in self.merges:
            reached = {root(axis) for axis in starts}
            found = [place for place, axis in enumerate(merge.axes) if root((merge.source, axis)) in reached]
            for place, axis in enumerate(merge.axes):
                if found != [place]:
                    self.lock((merge.source, axis), f"are merged with other axes by {merge.title}")
            if len(found) == 1:
                carrier = (merge.source, merge.axes[found[0]])
                self.link(carrier, merge.target, merge.digits[found[0]])
                parent[root(merge.target)] = root(carrier)
            else:
                self.lock(merge.target, f"are merged with other axes by {merge.title}")
        self.merges.clear()

    def integers(self, node: Node, index: int, attribute: str) -> tuple[int, ...] | None:
        """Integers from an attribute (older opsets) or a constant operand; None when absent or computed."""
        found = node.attributes.get(attribute)
        if found is not None:
            return tuple(found) if isinstance(found, tuple) else (found,)
        if index < len(node.inputs) and node.inputs[index] in self.constants:
            return tuple(int(item) for item in np.atleast_1d(self.constants[node.inputs[index]]).ravel())
        return None
