"""Operands and attributes that speak of sizes or positions follow the channels that leave.

Reshape, Resize and Expand are told the size of their result, Split the sizes of its parts, Slice where to begin and end,
Gather which positions to take, a grouped layer how many groups there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.model_view import attributes, reads
from hwc_onnx.normalize.editing import all_names, fresh_name, remove_attributes, set_attribute

Masks = Mapping[int, NDArray[np.bool_]]
"""Axis -> which positions stay."""

SIZE_OPERAND = {"Reshape": 1, "Resize": 3, "Expand": 1}
"""Operators that are told the size of their result, and the place of that operand."""


class OperandSizes:
    """Rewrites the nodes of a graph in place; `stays` says which positions of each tensor's axes stay."""

    def __init__(self, target: onnx.GraphProto, graph: LayerGraph, stays: Mapping[str, Masks]) -> None:
        self.target, self.graph, self.stays = target, graph, stays
        self.constants = {tensor.name: tensor for tensor in target.initializer}
        self.taken = all_names(target)
        self.readers = Counter(name for node in target.node for name in reads(node))

    def follow(self) -> None:
        """Rewrite every node that reads or makes a tensor whose positions leave."""
        for node in self.target.node:
            read = self.stays.get(node.input[0], {}) if node.input else {}
            made = self.stays.get(node.output[0], {})
            if node.op_type in SIZE_OPERAND and made:
                self._sizes(node, SIZE_OPERAND[node.op_type], made)
            elif node.op_type == "Split" and read:
                self._split(node, read)
            elif node.op_type == "Slice" and read:
                self._slice(node, read)
            elif node.op_type == "Pad" and made:
                self._pads(node, made)
            elif node.op_type == "Gather" and read:
                self._gather(node, read, made)
            elif node.op_type in ("Conv", "ConvTranspose") and (read or made):
                self._groups(node)
            elif node.op_type == "GroupNormalization" and 1 in read:
                groups = attributes(node)["num_groups"] * int(read[1].sum()) // len(read[1])
                set_attribute(node, "num_groups", groups)

    def _sizes(self, node: onnx.NodeProto, place: int, made: Masks) -> None:
        """Entries that are neither 0 nor -1 follow the channels."""
        sizes = self._operand(node, place)
        if sizes is None:
            return
        facts = attributes(node)
        rank = len(self.graph.tensors[node.output[0]].shape)
        named = facts.get("axes", tuple(range(rank))[-len(sizes) :])
        for axis, mask in made.items():
            for entry, of in enumerate(named):
                if of % rank == axis and (sizes[entry] > 0 or (facts.get("allowzero", 0) and sizes[entry] == 0)):
                    sizes[entry] = int(mask.sum())
        self._put(node, place, sizes)

    def _split(self, node: onnx.NodeProto, read: Masks) -> None:
        axis = int(attributes(node).get("axis", 0)) % len(self.graph.tensors[node.input[0]].shape)
        if axis not in read:
            return
        sizes, start = [], 0
        for name in node.output:
            end = start + self.graph.tensors[name].shape[axis]
            sizes.append(int(read[axis][start:end].sum()))
            start = end
        remove_attributes(node, ["num_outputs"])
        self._put(node, 1, np.array(sizes, dtype=np.int64))

    def _slice(self, node: onnx.NodeProto, read: Masks) -> None:
        shape = self.graph.tensors[node.input[0]].shape
        starts, ends = self._operand(node, 1), self._operand(node, 2)
        if starts is None or ends is None:
            return
        axes = self._operand(node, 3)
        named = range(len(starts)) if axes is None else [int(axis) % len(shape) for axis in axes]
        for entry, axis in enumerate(named):
            if axis in read:
                start, end, _ = slice(int(starts[entry]), int(ends[entry])).indices(shape[axis])
                starts[entry], ends[entry] = int(read[axis][:start].sum()), int(read[axis][:end].sum())
        self._put(node, 1, starts)
        self._put(node, 2, ends)

    def _gather(self, node: onnx.NodeProto, read: Masks, made: Masks) -> None:
        axis = int(attributes(node).get("axis", 0)) % len(self.graph.tensors[node.input[0]].shape)
        places = self._operand(node, 1)
        if axis not in read or places is None:
            return
        mask = read[axis]
        places = np.where(places < 0, places + len(mask), places)
        left = places[made[axis]] if axis in made else places
        self._put(node, 1, (np.cumsum(mask) - 1)[left].astype(np.int64))

    def _pads(self, node: onnx.NodeProto, made: Masks) -> None:
        """As many constants in front and behind as positions that stay there."""
        pads = self._operand(node, 1)
        shape = self.graph.tensors[node.input[0]].shape
        if pads is None or len(node.input) > 3:
            return
        for axis, mask in made.items():
            before, after = int(pads[axis]), int(pads[axis + len(shape)])
            if before or after:
                pads[axis] = int(mask[:before].sum())
                pads[axis + len(shape)] = int(mask[before + shape[axis] :].sum())
        self._put(node, 1, pads)

    def _groups(self, node: onnx.NodeProto) -> None:
        """As many groups as there are channels left for places in a group, on the side where groups lie one after another."""
        if attributes(node).get("group", 1) == 1:
            return
        weight = self.constants[node.input[1]]
        side = node.input[0] if node.op_type == "Conv" else node.output[0]
        channels = self.graph.tensors[side].shape[1]
        if 1 in self.stays.get(side, {}):
            channels = int(self.stays[side][1].sum())
        set_attribute(node, "group", channels // weight.dims[1])

    def _operand(self, node: onnx.NodeProto, place: int) -> NDArray[np.int64] | None:
        if place >= len(node.input) or node.input[place] not in self.constants:
            return None
        return numpy_helper.to_array(self.constants[node.input[place]]).astype(np.int64)

    def _put(self, node: onnx.NodeProto, place: int, values: NDArray[np.int64]) -> None:
        """Give the node these values; where others read the old ones too, in a constant of its own."""
        while len(node.input) <= place:
            node.input.append("")
        old = self.constants.get(node.input[place])
        dtype = np.int64 if old is None else numpy_helper.to_array(old).dtype
        if old is not None and self.readers[old.name] == 1:
            old.CopyFrom(numpy_helper.from_array(values.astype(dtype), old.name))
            return
        name = fresh_name(self.taken, f"{node.output[0]}_sizes")
        tensor = self.target.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), name))
        node.input[place] = name
