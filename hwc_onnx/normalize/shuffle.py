"""A channel shuffle, written as Reshape, Transpose, Reshape, becomes one Gather of channels.

before  [N, C, ..] -> [N, g, C/g, ..] -> [N, C/g, g, ..] -> [N, C, ..]        after  y = x[:, order]

Both move the same values; but the order can be any, so that single channels can be removed on either side. Source of
the operator: Zhang et al., "ShuffleNet", CVPR 2018, section 3.1.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.normalize.editing import all_names, fresh_name, keep_nodes, put_initializer


def gather_shuffles(proto: onnx.ModelProto, shapes: Shapes) -> None:
    """Replace every channel shuffle, in place."""
    view = ModelView(proto)
    taken = all_names(proto.graph)
    found: list[tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, int]] = []
    for first in proto.graph.node:
        if first.op_type != "Reshape":
            continue
        middle = view.only_consumer(first.output[0])
        last = view.only_consumer(middle.output[0]) if middle is not None and middle.op_type == "Transpose" else None
        if middle is None or last is None or last.op_type != "Reshape":
            continue
        groups = _shuffled(first, middle, last, shapes)
        if groups:
            found.append((first, middle, last, groups))
    gone: set[str] = set()
    for first, middle, last, groups in found:
        channels = shapes[last.output[0]][0][1]
        order = np.arange(channels, dtype=np.int64).reshape(groups, -1).T.reshape(-1)
        name = fresh_name(taken, f"{last.output[0]}_order")
        put_initializer(proto.graph, name, order)
        gone |= {first.output[0], middle.output[0]}
        node = helper.make_node("Gather", [first.input[0], name], [last.output[0]], name=last.name, axis=1)
        last.CopyFrom(node)
    if gone:
        keep_nodes(proto.graph, lambda node: node.output[0] not in gone)


def _shuffled(first: onnx.NodeProto, middle: onnx.NodeProto, last: onnx.NodeProto, shapes: Shapes) -> int:
    """The number of groups that the three nodes shuffle between, 0 if they do something else."""
    names = (first.input[0], first.output[0], last.output[0])
    if any(name not in shapes for name in names):
        return 0
    before, cut, after = (shapes[name][0] for name in names)
    swapped = (0, 2, 1, *range(3, len(cut)))
    if before != after or len(cut) != len(before) + 1 or tuple(attributes(middle).get("perm", ())) != swapped:
        return 0
    if cut[0] != before[0] or cut[3:] != before[2:] or cut[1] * cut[2] != before[1]:
        return 0
    return int(cut[1])
