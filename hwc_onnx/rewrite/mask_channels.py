"""The reference for channel removal: the same shapes, the dropped channels without any effect.

The weights of dropped channels are zero. That is enough where every operator works on each channel by itself; one that
looks at all channels at once (a normalization over channels, a mean of channels, a product of two activations) is made to
see only those that stay, since zeros would change its result.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hwc_onnx.graph.layer_graph import LayerGraph, Node
from hwc_onnx.graph.op_kinds import REDUCTIONS
from hwc_onnx.normalize.editing import all_names, fresh_name
from hwc_onnx.rewrite.remove_channels import Keep, stays_of

Masks = Mapping[int, NDArray[np.bool_]]

NORMS = frozenset({"LayerNormalization", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN"})
"""Operators whose result has the channels that they look at."""


def mask_channels(proto: onnx.ModelProto, graph: LayerGraph, keep: Keep) -> onnx.ModelProto:
    """A new model of the same shapes in which all channels not in `keep` have no effect on those that are.

    Raises:
        PlanError: as for `remove_channels`.
    """
    stays = stays_of(graph, keep)
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    weights = {layer.weight for layer in graph.layers}
    for tensor in model.graph.initializer:
        if tensor.name in weights and tensor.name in stays:
            values = numpy_helper.to_array(tensor).copy()
            for axis, mask in stays[tensor.name].items():
                np.moveaxis(values, axis, 0)[~mask] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    del model.graph.value_info[:]
    _Blinkers(model.graph, graph, stays).put_on()
    return model


class _Blinkers:
    """Lets operators that look at several channels see only those that stay."""

    def __init__(self, target: onnx.GraphProto, graph: LayerGraph, stays: Mapping[str, Masks]) -> None:
        self.target, self.graph, self.stays = target, graph, stays
        self.taken = all_names(target)
        self.nodes: list[onnx.NodeProto] = []

    def put_on(self) -> None:
        """Rewrite the nodes in place."""
        facts = {node.key: node for node in self.graph.nodes}
        layers = {layer.key for layer in self.graph.layers if layer.weight is not None}
        for node in self.target.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            fact = facts.get(node.output[0])
            if fact is not None and node.output[0] not in layers:
                self._look(copy, fact)
            else:
                self.nodes.append(copy)
        del self.target.node[:]
        self.target.node.extend(self.nodes)

    def _look(self, node: onnx.NodeProto, fact: Node) -> None:
        back: list[tuple[int, NDArray[np.bool_]]] = []
        for place, axis in self._looked_at(fact):
            mask = self.stays.get(fact.inputs[place], {}).get(axis)
            if mask is not None:
                node.input[place] = self._take(node.input[place], axis, np.flatnonzero(mask))
                if place == 0 and fact.op_type in NORMS:
                    back.append((axis, mask))
        result = node.output[0]
        self.nodes.append(node)
        for axis, mask in back:
            # dropped channels come back as zeros: a zero is appended, and taken wherever one was dropped
            name = fresh_name(self.taken, f"{result}_seen")
            self.nodes[-1].output[0] = name
            pads = np.zeros(2 * len(self.graph.tensors[result].shape), dtype=np.int64)
            pads[len(pads) // 2 + axis] = 1
            padded = fresh_name(self.taken, f"{result}_padded")
            self.nodes.append(helper.make_node("Pad", [name, self._constant(pads)], [padded]))
            places = np.where(mask, np.cumsum(mask) - 1, int(mask.sum()))
            self.nodes.append(helper.make_node("Gather", [padded, self._constant(places)], [result], axis=axis))

    def _looked_at(self, fact: Node) -> list[tuple[int, int]]:
        """(place of the operand, axis) of all positions that one element of the result depends on."""
        shapes = [self.graph.tensors[name].shape if name else () for name in fact.inputs]
        rank = len(shapes[0]) if shapes else 0
        if fact.op_type in REDUCTIONS:
            axes = fact.attributes.get("axes") or range(rank)
            return [(0, axis % rank) for axis in axes]
        if fact.op_type in ("LayerNormalization", "RMSNormalization"):
            first = int(fact.attributes.get("axis", -1)) % rank
            over = [(0, axis) for axis in range(first, rank)]
            return over + [(p, a) for p in range(1, len(shapes)) for a in range(len(shapes[p]))]
        if fact.op_type == "LRN":
            return [(0, 1)]
        if fact.op_type == "LpNormalization":
            return [(0, int(fact.attributes.get("axis", -1)) % rank)]
        if fact.op_type == "MeanVarianceNormalization":
            return [(0, axis) for axis in fact.attributes.get("axes", (0, 2, 3))]
        if fact.op_type in ("MatMul", "Gemm"):
            flip_a, flip_b = fact.attributes.get("transA", 0), fact.attributes.get("transB", 0)
            b = len(shapes[1])
            return [(0, rank - 2 if flip_a else rank - 1), (1, b - 1 if flip_b else max(b - 2, 0))]
        if fact.op_type == "Einsum":
            terms, _, result = str(fact.attributes["equation"]).replace(" ", "").partition("->")
            return [(p, a) for p, term in enumerate(terms.split(",")) for a, x in enumerate(term) if x not in result]
        return []

    def _take(self, name: str, axis: int, places: NDArray[np.int64]) -> str:
        seen = fresh_name(self.taken, f"{name}_kept")
        self.nodes.append(helper.make_node("Gather", [name, self._constant(places)], [seen], axis=axis))
        return seen

    def _constant(self, values: NDArray[np.int64]) -> str:
        name = fresh_name(self.taken, "places")
        self.target.initializer.append(numpy_helper.from_array(values.astype(np.int64), name))
        return name
