"""Nodes that compute nothing go: Constant becomes an initializer, Identity and inference-time Dropout a name.

Sparse initializers become dense ones: a weight is pruned and quantized as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.model_view import ModelView
from hwc_onnx.normalize.editing import drop_unused, keep_nodes, put_initializer, rename_reads


def constants_to_initializers(proto: onnx.ModelProto) -> None:
    """Every Constant node becomes an initializer of the same name; defaults of inputs become constants too."""
    graph = proto.graph
    made = set()
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            values = _constant_value(node)
            if values is not None:
                graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
                made.add(node.output[0])
    keep_nodes(graph, lambda node: not (node.op_type == "Constant" and node.output[0] in made))
    for sparse in graph.sparse_initializer:
        put_initializer(graph, sparse.values.name, dense(sparse))
    del graph.sparse_initializer[:]
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    if len(inputs) != len(graph.input):
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
        del graph.input[:]
        graph.input.extend(copies)
        proto.ir_version = max(proto.ir_version, 4)  # below 4 an initializer must be declared as an input


def _constant_value(node: onnx.NodeProto) -> NDArray[np.generic] | None:
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return numpy_helper.to_array(value)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
        if attribute.name == "sparse_value":
            return dense(value)
    return None


def dense(sparse: onnx.SparseTensorProto) -> NDArray[Any]:
    """The array [dims] that a sparse tensor stands for; its indices are linear [NNZ] or by axis [NNZ, rank]."""
    shape = tuple(sparse.dims)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    result = np.zeros(shape, values.dtype)
    try:
        places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
        result.reshape(-1)[places] = values
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"sparse tensor '{sparse.values.name}' of shape {'x'.join(map(str, shape))}: {error}; export the model again"
        ) from error
    return result


def drop_aliases(proto: onnx.ModelProto) -> None:
    """Remove Identity and Dropout at inference, which only rename a tensor.

    A model output keeps its name: the node that makes the tensor takes the output's name. An input handed straight to
    an output keeps its Identity.
    """
    graph = proto.graph
    outputs = {value.name for value in graph.output}
    view = ModelView(proto)
    made_by = dict(view.producer)
    names: dict[str, str] = {}
    gone: set[str] = set()

    def final(name: str) -> str:
        while name in names:
            name = names[name]
        return name

    for node in graph.node:
        if not _is_alias(view, node):
            continue
        source, result = final(node.input[0]), node.output[0]
        if result not in outputs:
            names[result] = source
        elif source in made_by and source not in outputs:
            maker = made_by[source]
            place = list(maker.output).index(source)
            maker.output[place] = result
            made_by[result] = maker
            names[source] = result
        else:
            continue
        gone.add(result)
    if not gone:
        return
    rename_reads(graph, {old: final(old) for old in names})
    keep_nodes(graph, lambda node: not (_is_alias_op(node) and node.output[0] in gone))


def _is_alias_op(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Identity", "Dropout") and node.domain in ("", "ai.onnx")


def _is_alias(view: ModelView, node: onnx.NodeProto) -> bool:
    if not _is_alias_op(node):
        return False
    if node.op_type == "Identity":
        return True
    training = view.constant(node, 2)
    if len(node.input) > 2 and node.input[2] and (training is None or bool(training)):
        return False
    mask = node.output[1] if len(node.output) > 1 else ""
    return not mask or (mask not in view.consumers and mask not in view.outputs)


def eliminate(proto: onnx.ModelProto) -> None:
    """All of the above, then whatever nothing depends on, in place."""
    constants_to_initializers(proto)
    drop_aliases(proto)
    drop_unused(proto.graph)
