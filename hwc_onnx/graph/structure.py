"""Is this graph one that can be computed? Each answer "no" names the node or tensor, what is wrong and what to do.

ONNX's own checker stops at the same faults, but it names neither the cycle nor the reader, and it does not look at the
sizes that would exhaust memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from onnx import TensorProto

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.external import is_mapped, stored_bytes
from hwc_onnx.graph.model_view import opset_of, reads, subgraphs

LOWEST_OPSET = 7
"""Before opset 7 operators broadcast by an attribute; no exporter of the last years writes that."""

DEEPEST = 24
"""Control flow may be nested this deep; protocol buffers end at about 32."""

LARGEST_TENSOR = 1 << 35
"""No tensor of a model may take more bytes than this (32 GiB)."""

RUNTIME_STANDARD = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime has in the standard domain at any opset; its optimizer writes them into older models."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def check_structure(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a model that no runtime could compute.

    Raises:
        ModelError: no nodes or outputs, an opset that is too old or too new, an operator that does not exist or lacks
            inputs, a cycle, a tensor that nobody or several nodes make, constants whose values do not fit their shape,
            or sizes beyond all reason.
    """
    graph = proto.graph
    _check_text(proto, where)
    if not graph.node:
        raise ModelError(f"{where}: not an ONNX model, or one without any node; export the model again as .onnx")
    if not graph.output:
        raise ModelError(f"{where}: the graph has no output, so nothing of it is needed; export the model again")
    _check_versions(proto, where)
    _check_declarations(graph, where)
    for tensor in all_tensors(graph):
        _check_tensor(tensor, where)
    functions = {(function.domain, function.name) for function in proto.functions}
    _check_scope(graph, set(), functions, opset_of(proto), where, 0)
    _check_weights(graph, where)


def label(node: onnx.NodeProto) -> str:
    """How messages name a node: its name or first output, and its operator."""
    name = node.name or next((name for name in node.output if name), "without a name")
    return f"node '{name}' ({node.op_type})"


def all_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Initializers and tensor attributes, subgraphs included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from all_tensors(inner)


def _check_text(proto: onnx.ModelProto, where: str) -> None:
    """Protocol buffers hand out bytes where a text is not UTF-8."""
    texts: list[Any] = [text for entry in proto.opset_import for text in [entry.domain]]
    texts += [text for entry in proto.metadata_props for text in (entry.key, entry.value)]
    texts += [proto.graph.name, *(text for f in proto.functions for text in (f.name, f.domain, *f.input, *f.output))]
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        texts += [value.name for value in (*graph.input, *graph.output, *graph.value_info)]
        texts += [dim.dim_param for value in (*graph.input, *graph.output) for dim in value.type.tensor_type.shape.dim]
        texts += [tensor.name for tensor in graph.initializer]
        for node in graph.node:
            texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
            texts += [attribute.name for attribute in node.attribute]
            graphs += subgraphs(node)
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise ModelError(f"{where}: truncated or damaged: {bytes(wrong)[:40]!r} is no UTF-8 text; export the model again")


def _check_versions(proto: onnx.ModelProto, where: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    declared = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not declared and any(node.domain in ("", "ai.onnx") for node in proto.graph.node):
        raise ModelError(f"{where}: declares no operator set; export the model again with opset 13 or later")
    if declared and not LOWEST_OPSET <= max(declared) <= newest:
        raise ModelError(
            f"{where}: opset {max(declared)}; supported are {LOWEST_OPSET} to {newest}. Export the model with one of them"
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{where}: IR version {proto.ir_version}; supported are versions up to {onnx.IR_VERSION}. "
            "Export with an older onnx, or update this installation's"
        )


def _check_declarations(graph: onnx.GraphProto, where: str) -> None:
    names: set[str] = set()
    for value in graph.input:
        if not value.name or value.name in names:
            raise ModelError(
                f"{where}: input {len(names)} has {'the name of another input, ' + repr(value.name) if value.name else 'no name'}; "
                "give each input a name of its own"
            )
        names.add(value.name)
        kind = value.type.tensor_type.elem_type
        if value.type.HasField("tensor_type") and kind not in TensorProto.DataType.values()[1:]:
            raise ModelError(
                f"{where}: input '{value.name}' has element type {kind}, which is not one of ONNX; export the model again"
            )
        total = 4
        for dim in value.type.tensor_type.shape.dim:
            total *= max(dim.dim_value, 1)
        if total > LARGEST_TENSOR:
            sizes = "x".join(str(dim.dim_value or "?") for dim in value.type.tensor_type.shape.dim)
            raise ModelError(
                f"{where}: input '{value.name}' of shape {sizes} would take {total / 2**30:,.0f} GiB; at most "
                f"{LARGEST_TENSOR >> 30} GiB are accepted. Export the model with the sizes it is used with"
            )
    constants = [tensor.name for tensor in graph.initializer]
    twice = next((name for name in constants if constants.count(name) > 1), None) if len(set(constants)) < len(constants) else None
    if twice is not None:
        raise ModelError(f"{where}: two initializers are called '{twice}'; give each a name of its own")


def _check_tensor(tensor: TensorProto, where: str) -> None:
    if tensor.data_type == TensorProto.STRING:
        return
    try:
        needed = stored_bytes(tensor)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    sizes = "x".join(map(str, tensor.dims))
    if needed > LARGEST_TENSOR:
        raise ModelError(
            f"{where}: tensor '{tensor.name}' of shape {sizes} would take {needed / 2**30:,.0f} GiB; at most "
            f"{LARGEST_TENSOR >> 30} GiB are accepted. The shape is probably damaged: export the model again"
        )
    if tensor.HasField("raw_data") and not is_mapped(tensor) and len(tensor.raw_data) != needed:
        raise ModelError(
            f"{where}: tensor '{tensor.name}' is truncated or damaged: its shape {sizes or 'scalar'} takes {needed} bytes, "
            f"but {len(tensor.raw_data)} are stored. Export the model again"
        )


def _check_scope(
    graph: onnx.GraphProto, outer: set[str], functions: set[tuple[str, str]], opset: int, where: str, depth: int
) -> None:
    """Nodes of one graph: operators exist, every tensor has one maker, and an order exists in which all can run."""
    if depth > DEEPEST:
        raise ModelError(
            f"{where}: control flow (If, Loop, Scan) nested more than {DEEPEST} deep; flatten it before exporting"
        )
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    maker: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if not any(node.output):
            raise ModelError(f"{where}: {label(node)} makes no tensor; remove it or export the model again")
        if (node.domain, node.op_type) not in functions:
            _check_operator(node, opset, where)
        for name in node.output:
            if name and (name in maker or name in given):
                other = label(maker[name]) if name in maker else "an input or initializer"
                raise ModelError(f"{where}: tensor '{name}' is made by {label(node)} and by {other}; rename one of them")
            if name:
                maker[name] = node
    known = outer | given | set(maker)
    for node in graph.node:
        missing = next((name for name in reads(node) if name not in known), None)
        if missing is not None:
            raise ModelError(
                f"{where}: {label(node)} reads tensor '{missing}', which nothing makes; "
                "the model was cut or edited wrongly, export it again"
            )
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"{where}: output '{value.name}' is made by no node; export the model again")
    _check_order(graph.node, maker, where)
    for node in graph.node:
        for inner in subgraphs(node):
            _check_scope(inner, known, functions, opset, where, depth + 1)


def _check_operator(node: onnx.NodeProto, opset: int, where: str) -> None:
    """The standard operator exists and has enough inputs and outputs; other domains are the runtime's affair."""
    if node.domain not in ("", "ai.onnx"):
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError as error:
        if node.op_type in RUNTIME_STANDARD:
            return
        raise ModelError(
            f"{where}: {label(node)}: operator set {opset} has no such operator; export the model again, or give the "
            "operator the domain it belongs to"
        ) from error
    for kind, count, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            allowed = f"{least}" if least == most else f"{least} to {most}"
            raise ModelError(
                f"{where}: {label(node)} has {count} {kind}; {node.op_type} in opset {opset} takes {allowed}. "
                "Export the model again"
            )


def _check_order(nodes: Iterable[onnx.NodeProto], maker: dict[str, onnx.NodeProto], where: str) -> None:
    """Refuse a cycle and name it. The search keeps its own stack: chains of many thousand nodes are common."""
    state: dict[int, int] = {}
    for start in nodes:
        path: list[tuple[onnx.NodeProto, Iterator[str]]] = [(start, iter(reads(start)))] if id(start) not in state else []
        state.setdefault(id(start), 1)
        while path:
            node, rest = path[-1]
            before = next((maker[name] for name in rest if name in maker and state.get(id(maker[name])) != 2), None)
            if before is None:
                state[id(node)] = 2
                path.pop()
            elif state.get(id(before)) == 1:
                first = next(place for place, (other, _) in enumerate(path) if other is before)
                names = [label(other) for other, _ in reversed(path[first:])]
                circle = " -> ".join([*names[:6], *(["..."] if len(names) > 6 else []), names[0]])
                raise ModelError(f"{where}: the graph has a cycle: {circle}; an ONNX graph must not, export the model again")
            else:
                state[id(before)] = 1
                path.append((before, iter(reads(before))))


def _check_weights(graph: onnx.GraphProto, where: str) -> None:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        weight = tensors.get(node.input[1]) if node.op_type in WEIGHTED and len(node.input) > 1 else None
        if weight is not None and 0 in weight.dims:
            raise ModelError(
                f"{where}: weight '{weight.name}' of {label(node)} has shape {'x'.join(map(str, weight.dims))}; "
                "a layer needs at least one channel on each side. Remove the layer, or export the model again"
            )
