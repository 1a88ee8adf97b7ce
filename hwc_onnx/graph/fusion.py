"""Which tensors are never stored, because the node that reads them works on the fly.

A node that computes (a layer, a batch normalization, an elementwise operator) streams its result through the
elementwise operators behind it: activation, Clip, batch normalization, addition of a constant. Several operators that
start from one tensor and meet again (GELU as Div-Erf-Add-Mul-Mul, hard-swish, SiLU) are one such unit. At an Add of two
branches the branch that is finished last streams in; the other one has to be stored.

A branch must be as large as the result. Where channels of the result can leave, it may have one position instead (a gate
that all channels share): with one channel left both are the same, and a plan must not change what is stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hwc_onnx.graph.layer_graph import Node
from hwc_onnx.graph.op_kinds import BINARY, UNARY

MAX_CLUSTER = 12
"""An activation written out in elementary operators is never longer than this many nodes."""


def fused_tensors(
    nodes: Sequence[Node],
    layers: frozenset[str] | set[str],
    shapes: Mapping[str, tuple[int, ...]],
    constants: frozenset[str] | set[str],
    outputs: Sequence[str],
    removable: Collection[tuple[str, int]],
) -> dict[str, str]:
    """Tensor -> key of the node that consumes it on the fly (the first one, where a unit reads it several times).

    `layers` are the keys of the nodes that are layers, `shapes` the static shapes, `constants` the initializers,
    `removable` the axes (tensor, number) whose channels can leave.
    """
    finder = _Finder(nodes, shapes, constants, frozenset(outputs), removable)
    fused: dict[str, str] = {}
    streaming: set[str] = set()
    for node in nodes:
        tensor = node.outputs[0]
        if not (node.key in layers or finder.elementwise(node) or node.op_type == "BatchNormalization"):
            continue
        streaming.add(tensor)
        region = finder.unit(tensor)
        for inner, consumer in region.items():
            fused.setdefault(inner, consumer)
    for node in nodes:
        last = finder.last_operand(node, streaming)
        if last is not None:
            fused.setdefault(last, node.key)
    return fused


class _Finder:
    """Look-ups shared by the two rules."""

    def __init__(
        self,
        nodes: Sequence[Node],
        shapes: Mapping[str, tuple[int, ...]],
        constants: frozenset[str] | set[str],
        outputs: frozenset[str],
        removable: Collection[tuple[str, int]],
    ) -> None:
        self.nodes = nodes
        self.shapes = shapes
        self.constants = constants
        self.outputs = outputs
        self.removable = removable
        self.position = {node.key: index for index, node in enumerate(nodes)}
        self.maker = {name: node for node in nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def data(self, node: Node) -> list[str]:
        """The operands that are not constants, once each."""
        return [name for name in dict.fromkeys(node.inputs) if name and name not in self.constants]

    def elementwise(self, node: Node) -> bool:
        """Computes each output element from the operands' elements at the same place."""
        return node.op_type in UNARY or node.op_type in BINARY

    def fits(self, operand: str, result: str) -> bool:
        """Whether an operand is as large as the result, but for channels that can leave."""
        small, large = self.shapes.get(operand), self.shapes.get(result)
        if small is None or large is None or len(small) != len(large):
            return False
        return all(
            size == other or (size == 1 and (result, axis) in self.removable)
            for axis, (size, other) in enumerate(zip(small, large, strict=True))
        )

    def streams(self, node: Node, tensors: set[str]) -> bool:
        """Can work on the fly when all its non-constant operands are in `tensors` and fit its output."""
        if not (self.elementwise(node) or node.op_type == "BatchNormalization"):
            return False
        return all(name in tensors and self.fits(name, node.outputs[0]) for name in self.data(node))

    def unit(self, tensor: str) -> dict[str, str]:
        """The smallest set of tensors, `tensor` included, that only the elementwise nodes right behind it read.

        Empty when some reader of `tensor` needs it stored.
        """
        if tensor in self.outputs or tensor not in self.readers:
            return {}
        inside = {tensor}
        pending = list(self.readers[tensor])
        taken: list[Node] = []
        while pending:
            pending.sort(key=lambda node: self.position[node.key])
            node = pending.pop(0)
            if not self.streams(node, inside) or len(taken) == MAX_CLUSTER:
                return {}
            taken.append(node)
            result = node.outputs[0]
            inside.add(result)
            if not pending:
                return {name: self.readers[name][0].key for name in sorted(inside - {result}, key=self._made_at)}
            if result in self.outputs or result not in self.readers:
                return {}
            pending += [reader for reader in self.readers[result] if reader not in pending]
        return {}

    def _made_at(self, tensor: str) -> int:
        maker = self.maker.get(tensor)
        return -1 if maker is None else self.position[maker.key]

    def last_operand(self, node: Node, streaming: set[str]) -> str | None:
        """At an elementwise node with several data operands: the one made last, if only this node reads it."""
        operands = self.data(node)
        if node.op_type not in BINARY or len(operands) < 2:
            return None
        free = [
            name
            for name in operands
            if name in streaming
            and len(self.readers[name]) == 1
            and name not in self.outputs
            and self.fits(name, node.outputs[0])
        ]
        return max(free, key=self._made_at) if free else None


def stored_output(tensor: str, fused: Mapping[str, str], output_of: Mapping[str, str]) -> str:
    """The tensor that is finally written when `tensor` is streamed on; `output_of` maps node keys to outputs."""
    seen = set()
    while tensor in fused and tensor not in seen:
        seen.add(tensor)
        tensor = output_of[fused[tensor]]
    return tensor
