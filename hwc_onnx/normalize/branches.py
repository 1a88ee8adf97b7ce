"""An If whose condition is a constant is replaced by the branch it takes.

Exporters write such an If where a choice depends on a shape only ("squeeze if this axis is 1"). One that hangs on an input
has such a condition once the input is a constant.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.graph.infer import NotRunnable, run_model
from hwc_onnx.normalize.editing import all_names, drop_unused, fresh_name, rename_reads

RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Operators that may give something else each time."""


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


def with_branches_taken(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the Ifs whose condition is computed from constants alone, whatever the sizes of the inputs, and without
    what nothing reads any more.
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    while True:
        _settle_conditions(model)
        if not take_branches(model):
            break
    drop_unused(model.graph)
    return model


def _settle_conditions(proto: onnx.ModelProto) -> None:
    """Let the Ifs whose condition no input takes part in read its value from an initializer, in place."""
    taken = all_names(proto.graph)
    for node in proto.graph.node:
        if node.op_type == "If":
            value = _constant_value(proto, node.input[0])
            if value is not None:
                node.input[0] = fresh_name(taken, f"{node.input[0]}_settled")
                proto.graph.initializer.append(numpy_helper.from_array(value, node.input[0]))


def _constant_value(proto: onnx.ModelProto, name: str) -> NDArray[np.generic] | None:
    """What is computed of constants alone, by ONNX Runtime; None where an input or chance takes part, an operator of another domain,
    or a graph inside a node.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    makers = {output: place for place, node in enumerate(proto.graph.node) for output in node.output}
    needed: set[int] = set()
    todo = [name]
    while todo:
        here = todo.pop()
        if here in makers:
            node = proto.graph.node[makers[here]]
            if node.op_type in RANDOM or node.domain not in ("", "ai.onnx"):
                return None
            if any(attribute.HasField("g") for attribute in node.attribute):
                return None
            if makers[here] not in needed:
                needed.add(makers[here])
                todo += [read for read in node.input if read]
        elif here not in constants:
            return None
    try:
        return np.asarray(run_model(proto, {}, [name])[name]) if needed else None
    except NotRunnable:
        return None


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
