"""An If whose condition is a constant is replaced by the branch it takes.

Exporters write such an If where a choice depends on a shape only ("squeeze if this axis is 1").
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from hwc_onnx.normalize.editing import all_names, fresh_name, rename_reads


def take_branches(proto: onnx.ModelProto) -> bool:
    """Splice constant branches into the graph, in place; says whether there were any."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    taken = all_names(proto.graph)
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in proto.graph.node:
        if node.op_type != "If" or node.domain not in ("", "ai.onnx") or node.input[0] not in constants:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        found = True
        wanted = "then_branch" if bool(numpy_helper.to_array(constants[node.input[0]]).ravel()[0]) else "else_branch"
        branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
        nodes += _spliced(proto, node, branch, taken)
    if found:
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
    return found


def _spliced(
    proto: onnx.ModelProto, node: onnx.NodeProto, branch: onnx.GraphProto, taken: set[str]
) -> list[onnx.NodeProto]:
    """The branch's nodes with names of their own; its outputs take the names of the If's outputs."""
    body = onnx.GraphProto.FromString(branch.SerializeToString())
    names = {}
    for tensor in body.initializer:
        names[tensor.name] = fresh_name(taken, f"{node.name or 'If'}/{tensor.name}")
    for inner in body.node:
        for name in inner.output:
            if name:
                names[name] = fresh_name(taken, f"{node.name or 'If'}/{name}")
    rename_reads(body, names)
    for tensor in body.initializer:
        tensor.name = names[tensor.name]
        proto.graph.initializer.append(tensor)
    for inner in body.node:
        for place, name in enumerate(inner.output):
            inner.output[place] = names.get(name, name)
    result = list(body.node)
    for value, name in zip(body.output, node.output, strict=True):
        source = names.get(value.name, value.name)
        result.append(onnx.helper.make_node("Identity", [source], [name], name=f"{name}_taken"))
    return result
