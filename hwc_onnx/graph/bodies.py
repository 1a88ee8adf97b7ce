"""What If, Loop and Scan run: each body as a layer graph of its own, and how often it runs.

Constants that a body takes from the graph around it become its own; tensors that it takes from there become inputs. A
body is read where its shapes are known before the model runs, and so is the number of trips; otherwise a reason is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.layer_graph import Body, Layer, LayerGraph
from hwc_onnx.graph.model_view import ModelView, attributes, captured

Parse = Callable[[onnx.ModelProto], LayerGraph]
Value = tuple[tuple[int, ...], str]
"""Static shape and element type of a tensor."""

ITERATION: Value = ((), "int64")
CONDITION: Value = ((), "bool")
SCAN_OPSET = 9
"""Before it, Scan had a batch axis and a length for each sequence."""


class Unreadable(Exception):
    """Why a body cannot be read; the message completes "Loop: ..."."""


def bodies_of(node: onnx.NodeProto, view: ModelView, shapes: Shapes, parse: Parse) -> tuple[Body, ...]:
    """The bodies of a node with subgraphs: of an If both, of which one runs.

    Args:
        node: the node.
        view: the graph around it.
        shapes: what is known of that graph's tensors.
        parse: makes a layer graph of a model.

    Raises:
        Unreadable: a shape or the number of trips is not known, or the operator is another one.
    """
    graphs = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("If", "Loop", "Scan"):
        raise Unreadable("its work is not modelled")
    if node.op_type == "If":
        return tuple(Body(name, _read(graph, [], view, shapes, parse), 1) for name, graph in sorted(graphs.items()))
    given, trips = (_loop if node.op_type == "Loop" else _scan)(node, graphs["body"], view, shapes)
    body = _read(graphs["body"], given, view, shapes, parse)
    if node.op_type == "Loop":
        states = zip(body.inputs[2 : len(node.input)], body.outputs[1:], strict=False)
    else:
        states = zip(body.inputs[: len(node.input) - attributes(node)["num_scan_inputs"]], body.outputs, strict=False)
    for before, after in states:
        if body.tensors[before].shape != body.tensors[after].shape:
            raise Unreadable(f"its state '{before}' changes its shape from trip to trip")
    return (Body("body", body, trips),)


def _loop(
    node: onnx.NodeProto, body: onnx.GraphProto, view: ModelView, shapes: Shapes
) -> tuple[list[Value | None], int]:
    """What each input of the body is, and the trips: the constant count, if nothing can end the loop before."""
    count, go_on = view.constant(node, 0), view.constant(node, 1)
    asked = len(node.input) > 1 and bool(node.input[1])
    if count is None:
        raise Unreadable("its number of trips is not a constant")
    if (asked and go_on is None) or not _goes_on(body):
        raise Unreadable("a condition that is computed can end it before its last trip")
    stopped = go_on is not None and not bool(np.ravel(go_on)[0])
    trips = 0 if stopped else max(0, int(np.ravel(count)[0]))
    return [ITERATION, CONDITION, *(shapes.get(name) for name in node.input[2:])], trips


def _goes_on(body: onnx.GraphProto) -> bool:
    """Whether a Loop's body hands its condition on as it came, or sets it to a constant that is true."""
    maker = {name: inner for inner in body.node for name in inner.output}
    name, came = body.output[0].name, body.input[1].name
    while name in maker and maker[name].op_type == "Identity":
        name = maker[name].input[0]
    values = _constants(body)
    if name in values:
        return bool(np.ravel(onnx.numpy_helper.to_array(values[name]))[0])
    return bool(name == came)


def _scan(
    node: onnx.NodeProto, body: onnx.GraphProto, view: ModelView, shapes: Shapes
) -> tuple[list[Value | None], int]:
    """What each input of the body is, a slice of each scanned tensor included, and the trips: the length of its axis."""
    if view.opset < SCAN_OPSET:
        raise Unreadable(f"opset {view.opset} has another form of it")
    facts = attributes(node)
    scanned = int(facts["num_scan_inputs"])
    states = list(node.input[: len(node.input) - scanned])
    axes = facts.get("scan_input_axes", (0,) * scanned)
    given: list[Value | None] = [shapes.get(name) for name in states]
    trips = set()
    for name, axis in zip(node.input[len(states) :], axes, strict=True):
        known = shapes.get(name)
        if known is None:
            raise Unreadable(f"the shape of '{name}', which it scans, is not known")
        shape, kind = known
        axis %= len(shape)
        trips.add(shape[axis])
        given.append((shape[:axis] + shape[axis + 1 :], kind))
    if len(trips) != 1:
        raise Unreadable(f"its scanned tensors have the lengths {', '.join(map(str, sorted(trips)))}")
    return given, trips.pop()


def _read(
    graph: onnx.GraphProto, given: list[Value | None], view: ModelView, shapes: Shapes, parse: Parse
) -> LayerGraph:
    """The body as a model: `given` says what its declared inputs are."""
    values: dict[str, Value] = {}
    for declared, known in zip(graph.input, given, strict=True):
        if known is None:
            raise Unreadable(f"the shape of '{declared.name}' inside is not known")
        values[declared.name] = known
    constants = _constants(graph)
    for name in sorted(captured(graph)):
        if name in view.initializers:
            constants[name] = view.initializers[name]
        elif name in shapes:
            values[name] = shapes[name]
        else:
            raise Unreadable(f"the shape of '{name}', which it reads, is not known")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind.upper()), list(shape))
        for name, (shape, kind) in values.items()
    ]
    nodes = [node for node in graph.node if not (node.op_type == "Constant" and node.output[0] in constants)]
    outputs = [onnx.ValueInfoProto(name=value.name) for value in graph.output]
    body = helper.make_graph(nodes, graph.name or "body", inputs, outputs, list(constants.values()))
    model = helper.make_model(body, opset_imports=view.proto.opset_import, ir_version=max(view.proto.ir_version, 4))
    try:
        found = parse(model)
    except ModelError as error:
        raise Unreadable(f"its body cannot be read ({error})") from error
    unknown = [value.name for value in graph.output if value.name not in found.tensors]
    if unknown:
        raise Unreadable(f"the shape of '{unknown[0]}' inside is not known")
    return found


def inner_layers(graph: LayerGraph) -> Iterator[Layer]:
    """The layers inside control flow, at any depth."""
    for bodies in graph.bodies.values():
        for body in bodies:
            yield from body.graph.layers
            yield from inner_layers(body.graph)


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Initializers of a body, and its Constant nodes that hold a tensor, a number or numbers."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    kinds: Mapping[str, type[np.generic]] = {
        "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64,
    }  # fmt: skip
    for node in graph.node:
        if node.op_type != "Constant" or not node.attribute:
            continue
        attribute = node.attribute[0]
        if attribute.name == "value":
            tensor = TensorProto.FromString(attribute.t.SerializeToString())
        elif attribute.name in kinds:
            values = np.asarray(helper.get_attribute_value(attribute), kinds[attribute.name])
            tensor = onnx.numpy_helper.from_array(values)
        else:
            continue
        tensor.name = node.output[0]
        found[tensor.name] = tensor
    return found
