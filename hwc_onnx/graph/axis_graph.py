"""The axis graph: which position of which axis of which tensor stands for the same channel.

It holds links between positions of (tensor, axis), and locks: axes that cannot lose positions, each with a reason a
user understands. `axis_rules` and `axis_moves` fill it operator by operator, `channel_groups` reads groups off it.

Some operators leave open which way channels go: a Reshape that splits an axis into heads and features, a convolution
whose groups can lose a whole group or the same place in each. Each such node is a *choice* with a few options; which
option is taken is given from outside, so that another can be tried when one leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer, Node
from hwc_onnx.graph.regroup import Regroup

Positions = NDArray[np.int64]
Axis = tuple[str, int]


class AxisGraph:
    """Positions of axes as numbered vertices, links between them, and locks.

    `options` counts the ways that each choice has, `chosen` says which one to take (0 where it does not), `chosen_at`
    are the axes that a choice concerns.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        constants: Mapping[str, Any],
        layers: Mapping[str, Layer],
        chosen: Mapping[str, int] | None = None,
        nodes: Iterable[Node] = (),
    ) -> None:
        self.shapes = shapes
        self.constants = constants
        self.layers = layers
        self.made = {name: node for node in nodes for name in node.outputs}
        self.chosen = chosen or {}
        self.options: dict[str, int] = {}
        self.chosen_at: list[tuple[Axis, str]] = []
        self.base: dict[Axis, int] = {}
        self.size = 0
        self.edges: list[tuple[Positions, Positions]] = []
        self.locks: list[tuple[Axis, str]] = []
        self.ties: list[tuple[Axis, Axis]] = []
        self.regroups: list[Regroup] = []

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

    def choose(self, key: str, axis: Axis, count: int) -> int:
        """Which of `count` ways the channels of `axis` go at the node `key`."""
        if count > 1:
            self.options[key] = max(count, self.options.get(key, 0))
            self.chosen_at.append((axis, key))
        return self.chosen.get(key, 0) % count

    def settle(self, seeds: Iterable[Axis]) -> None:
        """Link both sides of each regrouping through the factor that channels from `seeds` reach, in node order.

        Axes of a regrouping that do not hold that factor are locked.
        """
        ties = _Ties()
        for first, second in self.ties:
            ties.join(first, second)
        for axis, _ in self.locks:
            ties.lock(axis)
        starts = tuple(seeds)
        for regroup in self.regroups:
            self._settle(regroup, ties, {ties.root(axis) for axis in starts})
        self.regroups.clear()

    def _settle(self, regroup: Regroup, ties: _Ties, reached: set[Axis]) -> None:
        open_to = [
            factor
            for factor in regroup.carriers()
            if ties.root((regroup.source, regroup.left_axis(factor))) in reached
        ]
        # a way into an axis that is locked already comes last
        open_to.sort(key=lambda factor: ties.locked((regroup.target, regroup.right_axis(factor))))
        taken = None
        if open_to:
            source = (regroup.source, regroup.left_axis(open_to[0]))
            taken = open_to[self.choose(regroup.key, source, len(open_to))]
            left, right = regroup.left_axis(taken), regroup.right_axis(taken)
            through = np.arange(self.size, self.size + regroup.factors[taken])
            self.size += len(through)
            for tensor, axis, digits in (
                (regroup.source, left, regroup.digits(regroup.left, taken)),
                (regroup.target, right, regroup.digits(regroup.right, taken)),
            ):
                self.edges.append((self.vertices(tensor, axis), through[digits]))
            self.ties.append(((regroup.source, left), (regroup.target, right)))
            ties.join((regroup.source, left), (regroup.target, right))
        for tensor, axes in ((regroup.source, regroup.left), (regroup.target, regroup.right)):
            for axis, factors in axes.items():
                if taken not in factors:
                    self.lock((tensor, axis), f"are merged or split with other axes by {regroup.title}")
                    ties.lock((tensor, axis))

    def sizes(self, name: str) -> list[int | None]:
        """The entries of a list of sizes, None where one is computed: a constant, or several joined."""
        found = self.constants.get(name)
        if found is not None:
            return [int(item) for item in np.atleast_1d(found).ravel()]
        maker = self.made.get(name)
        if maker is not None and maker.op_type == "Concat":
            return [entry for part in maker.inputs for entry in self.sizes(part)]
        return [None] * int(np.prod(self.shapes.get(name, (1,)), dtype=np.int64))

    def integers(self, node: Node, index: int, attribute: str) -> tuple[int, ...] | None:
        """Integers from an attribute (older opsets) or a constant operand; None when absent or computed."""
        found = node.attributes.get(attribute)
        if found is not None:
            return tuple(found) if isinstance(found, tuple) else (found,)
        if index < len(node.inputs) and self.constants.get(node.inputs[index]) is not None:
            return tuple(int(item) for item in np.atleast_1d(self.constants[node.inputs[index]]).ravel())
        return None


class _Ties:
    """Which axes are tied to one another (union-find), and which of these sets are locked."""

    def __init__(self) -> None:
        self._parent: dict[Axis, Axis] = {}
        self._locked: set[Axis] = set()

    def root(self, axis: Axis) -> Axis:
        while self._parent.setdefault(axis, axis) != axis:
            self._parent[axis] = self._parent[self._parent[axis]]
            axis = self._parent[axis]
        return axis

    def join(self, first: Axis, second: Axis) -> None:
        one, other = self.root(first), self.root(second)
        if one != other:
            self._parent[one] = other
            if one in self._locked:
                self._locked.add(other)

    def lock(self, axis: Axis) -> None:
        self._locked.add(self.root(axis))

    def locked(self, axis: Axis) -> bool:
        return self.root(axis) in self._locked
