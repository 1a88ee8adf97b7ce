"""Activation groups: which stored tensors share one quantizer, and which layers read it.

Every tensor that is stored between nodes either belongs to exactly one group, whose width it is stored at, or is left
at 16 bits. Operators that only move, select or clip values (pooling by maximum, Reshape, Transpose, Concat, an unfused
Relu) tie their operands and results to one quantizer. A tensor that no layer reads still has a group, unless an
operator that needs more precision reads or makes it (LayerNorm, Softmax, GELU and the like), or it lies inside such an operator
that is written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwc_onnx.graph.layer_graph import ActivationGroup, Layer, Node
from hwc_onnx.graph.op_kinds import FLOAT_READERS, JOINS, LAYER_OPS, NARROW_OPS
from hwc_onnx.graph.statistics import inside_statistics

FLOATS = frozenset({"float", "float16", "bfloat16", "double"})


def joins(node: Node, fused: Mapping[str, str], constants: Mapping[str, Any]) -> tuple[str, ...]:
    """The tensors that this node ties to one quantizer (empty when it ties none)."""
    outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
    if node.op_type in JOINS:
        sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    elif node.op_type in ("Relu", "Clip"):
        sources = () if node.inputs[0] in fused else node.inputs[:1]
    elif node.op_type == "Pad":
        # a fill value other than zero may lie outside the quantizer's range, so such a Pad is given its own
        sources = node.inputs[:1] if _pads_with_zero(node, constants) else ()
    elif node.op_type == "Resize":
        sources = node.inputs[:1] if node.attributes.get("mode", "nearest") == "nearest" else ()
    else:
        return ()
    kept = tuple(name for name in sources if name not in constants)
    return (*kept, *outputs) if kept else ()


def _pads_with_zero(node: Node, constants: Mapping[str, Any]) -> bool:
    if node.attributes.get("mode", "constant") != "constant":
        return True
    if len(node.inputs) > 2 and node.inputs[2]:
        value = constants.get(node.inputs[2])
        return value is not None and bool(np.all(value == 0))
    return bool(node.attributes.get("value", 0.0) == 0.0)


def activation_groups(
    nodes: Sequence[Node],
    layers: Sequence[Layer],
    dtypes: Mapping[str, str],
    fused: Mapping[str, str],
    constants: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> tuple[ActivationGroup, ...]:
    """The groups in order of their first tensor; `dtypes` are the element types of all tensors,
    `constants` the initializers' values (None for large ones)."""
    order = [*inputs, *(name for node in nodes for name in node.outputs if name)]
    stored = [name for name in order if name not in fused and name not in constants and dtypes.get(name) in FLOATS]
    parent = {name: name for name in stored}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for node in nodes:
        tied = [name for name in joins(node, fused, constants) if name in parent]
        for other in tied[1:]:
            parent[root(other)] = root(tied[0])
    families: dict[str, list[str]] = {}
    for name in stored:
        families.setdefault(root(name), []).append(name)
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.inputs):
            readers.setdefault(name, []).append(layer.key)
    narrow = _Narrow(nodes, inside_statistics(nodes, constants), frozenset(outputs))
    groups = []
    for family in families.values():
        keys = tuple(dict.fromkeys(key for name in family for key in readers.get(name, ())))
        members = tuple(name for name in family if name not in outputs or name in readers)
        if members and (keys or all(narrow(name) for name in family)):
            groups.append(ActivationGroup(members[0], members, keys))
    return tuple(groups)


class _Narrow:
    """Whether a stored tensor that no layer reads can live in 8 bits without harm."""

    def __init__(self, nodes: Sequence[Node], statistics: frozenset[str], outputs: frozenset[str]) -> None:
        self.statistics = statistics
        self.maker = {name: node for node in nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)
        self.outputs = outputs

    def __call__(self, tensor: str) -> bool:
        if tensor in self.outputs or tensor not in self.readers or tensor in self.statistics:
            return False
        maker = self.maker.get(tensor)
        made_well = (
            maker is None or maker.op_type in NARROW_OPS or maker.op_type in LAYER_OPS or maker.op_type == "Softmax"
        )
        return made_well and all(
            reader.op_type in NARROW_OPS and reader.op_type not in FLOAT_READERS for reader in self.readers[tensor]
        )
