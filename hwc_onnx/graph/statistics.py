"""Tensors inside normalizations and softmaxes that are written out in elementary operators.

A root, a reciprocal, a quotient or a logarithm of something summed up magnifies small errors of it: a variance that rounds to
zero makes everything behind it infinite. ONNX's own LayerNormalization and Softmax keep such values to themselves; where an
exporter writes them out (JAX and TensorFlow do), the same values lie between nodes, and must not be rounded to 8 bits there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hwc_onnx.graph.layer_graph import Node
from hwc_onnx.graph.op_kinds import BINARY, JOINS, REDUCTIONS, UNARY

STEEP = frozenset({"Sqrt", "Reciprocal", "Log", "Pow", "Div"})
"""Operators whose slope has no bound; of a Div the divisor counts, of a Pow the base where the exponent is not a whole number."""


def inside_statistics(nodes: Sequence[Node], constants: Mapping[str, Any]) -> frozenset[str]:
    """Names of the tensors from what a statistic is taken of to where it is applied, both included.

    A statistic is what a steep operator makes of a sum, mean or maximum, with elementwise operators between.
    """
    maker = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)

    def data(node: Node) -> list[str]:
        return [name for name in dict.fromkeys(node.inputs) if name and name not in constants]

    def back(tensor: str) -> set[str] | None:
        """Tensors from `tensor` back to what was summed up; None where no sum is met."""
        found, pending, summed = {tensor}, [tensor], False
        while pending:
            node = maker.get(pending.pop())
            if node is None:
                continue
            if node.op_type in REDUCTIONS:
                summed = True
                found |= _summed(node.inputs[0], maker, data)
            elif node.op_type in UNARY | BINARY | JOINS:
                fresh = [name for name in data(node) if name not in found]
                found |= set(fresh)
                pending += fresh
        return found if summed else None

    inside: set[str] = set()
    for node in nodes:
        for tensor in _steep_operands(node, constants):
            before = back(tensor)
            if before is not None:
                inside |= before | _ahead(node, readers, data)
    return frozenset(inside)


def _steep_operands(node: Node, constants: Mapping[str, Any]) -> tuple[str, ...]:
    """The computed operands whose errors a node magnifies without bound."""
    if node.op_type not in STEEP:
        return ()
    name = node.inputs[1] if node.op_type == "Div" else node.inputs[0]
    if node.op_type == "Pow":
        exponent = constants.get(node.inputs[1])
        if exponent is None or (np.all(exponent == np.round(exponent)) and np.all(exponent > 0)):
            return ()
    return () if name in constants else (name,)


def _summed(tensor: str, maker: Mapping[str, Node], data: Callable[[Node], list[str]]) -> set[str]:
    """What a sum is taken of: the tensor, what it is the square or the exponential of, and what that was centred from."""
    found = {tensor}
    node = maker.get(tensor)
    if node is not None and (node.op_type in UNARY or (node.op_type in ("Mul", "Pow") and len(data(node)) == 1)):
        tensor = data(node)[0]
        found.add(tensor)
        node = maker.get(tensor)
    if node is not None and node.op_type == "Sub":
        found |= set(data(node))
    return found


def _ahead(node: Node, readers: Mapping[str, list[Node]], data: Callable[[Node], list[str]]) -> set[str]:
    """From a steep node to where its result meets what it is applied to, which is included."""
    if node.op_type == "Div":
        return set(data(node))
    found, pending = {node.outputs[0]}, [node.outputs[0]]
    while pending:
        for reader in readers.get(pending.pop(), ()):
            if reader.op_type in BINARY and not set(data(reader)) <= found:
                found |= set(data(reader))
            elif reader.op_type in UNARY | BINARY | JOINS and reader.outputs[0] not in found:
                found.add(reader.outputs[0])
                pending.append(reader.outputs[0])
    return found
