"""Parsing: a normalized model, or a quantized file written by this tool, becomes a `LayerGraph`.

Widths come from the quantizers in the file, weight densities from counting zeros, activation densities from the caller
or from the file's `hwc.activation_density` record. No energy figure is ever read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.activation_groups import activation_groups, joins
from hwc_onnx.graph.bodies import Unreadable, bodies_of
from hwc_onnx.graph.channel_groups import channel_groups
from hwc_onnx.graph.domains import foreign_domain, is_foreign
from hwc_onnx.graph.fusion import fused_tensors, stored_output
from hwc_onnx.graph.infer import Shapes, infer_shapes
from hwc_onnx.graph.layer_graph import FLOAT_BITS, ActivationGroup, Body, Layer, LayerGraph, Node, TensorInfo
from hwc_onnx.graph.layers import layer_of
from hwc_onnx.graph.model_view import ModelView, attributes, reads, subgraphs
from hwc_onnx.graph.op_kinds import GATES, LAYER_OPS, OTHER_MAC_OPS, REDUCTIONS
from hwc_onnx.graph.zero_pattern import Blocks, Pattern, filled_share, follows_pattern

DENSITY_KEY = "hwc.activation_density"
"""Metadata: JSON {tensor: share of elements that are not the zero point}."""

AXES_OPS = REDUCTIONS | {"Squeeze", "Unsqueeze"}

PATTERN_KEY = "hwc.nm_pattern"
"""Metadata: JSON {layer key: [N, M]}, believed only where every run of M weights holds at most N that are not zero, or
{layer key: "1x4"} for blocks of four, which are counted."""

LONGEST_RUN = 9999
"""Weights of a pattern that a file may declare."""

BLOCK_NAME = re.compile(r"1x([1-9]\d{0,3})")


@dataclass(frozen=True)
class _Widths:
    """Widths and densities found in a file's quantizers; all empty for a float model."""

    weight_bits: Mapping[str, int] = field(default_factory=dict)
    weight_density: Mapping[str, float] = field(default_factory=dict)
    activation_bits: Mapping[str, int] = field(default_factory=dict)
    weight_scale: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def parse(
    proto: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    densities: Mapping[str, float] | None = None,
) -> LayerGraph:
    """The layer graph at batch 1 (or at `input_shapes`); `densities` are activation densities by tensor name.

    Raises:
        ModelError: an open input shape, or contradictory shapes.
    """
    logical, widths = _logical(proto)
    view = ModelView(logical)
    found = infer_shapes(logical, input_shapes)
    shapes = {name: shape for name, (shape, _) in found.items()}
    dtypes = {name: dtype for name, (_, dtype) in found.items()}
    nodes = tuple(_node(view, node) for node in logical.graph.node if node.op_type != "Constant")
    constants = {
        name: view.array(name) if np.prod(tensor.dims) <= 4096 else None for name, tensor in view.initializers.items()
    }
    layers, unmodelled = _layers(view, nodes, shapes, constants)
    bodies, unreadable = _bodies(view, found)
    unmodelled += unreadable
    names = frozenset(constants)
    channels = channel_groups(nodes, layers, shapes, constants, view.inputs, view.outputs)
    free = {(m.tensor, m.axis) for group in channels if group.locked_because is None for m in group.members}
    fused = fused_tensors(nodes, {layer.key for layer in layers}, shapes, names, view.outputs, free)
    groups = activation_groups(nodes, layers, dtypes, fused, constants, view.inputs, view.outputs)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if densities is None:
        densities = _record(metadata, DENSITY_KEY)
    bits = _activation_bits(groups, nodes, fused, constants, widths.activation_bits)
    tensors = _tensors(view, nodes, shapes, dtypes, bits, groups, densities)
    tensors.update(_weights(view, layers, tensors, widths))
    graph = LayerGraph(
        layers=(),
        nodes=nodes,
        tensors=tensors,
        inputs=view.inputs,
        outputs=view.outputs,
        opset=view.opset,
        source_digest=hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(),
        channel_groups=channels,
        activation_groups=groups,
        fused=fused,
        unmodelled=unmodelled,
        bodies=bodies,
    )
    output_of = {node.key: node.outputs[0] for node in nodes}
    patterns = _record(metadata, PATTERN_KEY)
    return replace(
        graph,
        layers=tuple(
            replace(
                layer,
                **operand_facts(layer, tensors, stored_output(layer.key, fused, output_of)),
                nm_pattern=_pattern(view, layer, patterns.get(layer.key)),
                weight_sum=_weight_sum(view, layer, widths.weight_scale),
            )
            for layer in layers
        ),
    )


def operand_facts(layer: Layer, tensors: Mapping[str, TensorInfo], stored: str) -> dict[str, Any]:
    """The widths and densities a layer takes over from its tensors; `stored` is where its result finally goes."""
    first = tensors[layer.inputs[0]]
    second = tensors[layer.weight if layer.weight is not None else layer.inputs[1]]
    return {
        "weight_bits": second.bits,
        "weight_density": second.density,
        "activation_bits": first.bits,
        "activation_density": first.density,
        "output_bits": tensors[stored].bits,
    }


def with_densities(graph: LayerGraph, densities: Mapping[str, float]) -> LayerGraph:
    """The graph with other activation densities (share of elements that are not zero, by stored tensor)."""
    tensors = dict(graph.tensors)
    for group in graph.activation_groups:
        for name in group.tensors:
            tensors[name] = replace(tensors[name], density=density_of(name, group, densities, tensors[name].density))
    layers = tuple(
        replace(layer, activation_density=tensors[layer.inputs[0]].density) if layer.inputs else layer
        for layer in graph.layers
    )
    return replace(graph, tensors=tensors, layers=layers)


def density_of(tensor: str, group: ActivationGroup | None, densities: Mapping[str, float], default: float) -> float:
    """A stored tensor's density: its own record, else its group's first tensor's, else `default`."""
    if tensor in densities:
        return densities[tensor]
    return default if group is None else densities.get(group.tensor, default)


def _logical(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, _Widths]:
    if not any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in proto.graph.node):
        return proto, _Widths()
    from hwc_onnx.graph.read_qdq import read_qdq

    logical = read_qdq(proto)
    return logical.proto, _Widths(
        logical.weight_bits, logical.weight_density, logical.activation_bits, logical.weight_scale
    )


def _node(view: ModelView, node: onnx.NodeProto) -> Node:
    """The node's facts. Axes are an attribute here, though later opsets pass them as an operand."""
    extra = tuple(name for name in reads(node) if name not in node.input)
    inputs, facts = tuple(node.input), attributes(node)
    if node.op_type in AXES_OPS and "axes" not in facts and len(inputs) > 1:
        axes = view.integers(node, 1)
        if axes is not None:
            inputs, facts = inputs[:1], {**facts, "axes": axes}
    return Node(
        key=node.output[0],
        name=node.name,
        op_type=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=(*inputs, *extra),
        outputs=tuple(node.output),
        attributes=facts,
    )


def _layers(
    view: ModelView, nodes: Sequence[Node], shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, Any]
) -> tuple[list[Layer], tuple[tuple[str, str], ...]]:
    layers: list[Layer] = []
    unmodelled: list[tuple[str, str]] = []
    protos = {node.output[0]: node for node in view.graph.node}
    for node in nodes:
        if is_foreign(protos[node.key]):
            whose = foreign_domain(protos[node.key])
            unmodelled.append((node.key, f"{node.op_type}: domain '{whose}' is foreign, so its work is not known"))
        elif any(name and name not in shapes for name in node.outputs):
            _check_product(node, shapes)
            unmodelled.append((node.key, f"{node.op_type}: the shape of its result is not known"))
        elif node.op_type in OTHER_MAC_OPS:
            unmodelled.append((node.key, f"{node.op_type}: its work is not modelled"))
        elif node.op_type in (*LAYER_OPS, *GATES) and node.domain == "":
            layer = layer_of(node, shapes, constants, _bias(view, node, shapes, constants))
            if layer is not None:
                layers.append(layer)
            else:
                unmodelled.append((node.key, f"{node.op_type}: its weights are computed, not constant"))
    return layers, tuple(unmodelled)


def _check_product(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A Gemm whose operands do not fit each other has no result, whatever else is not known.

    Raises:
        ModelError: what is summed has two sizes.
    """
    if node.op_type == "Gemm" and all(len(shapes.get(name, ())) == 2 for name in node.inputs[:2]):
        first, second = (shapes[name] for name in node.inputs[:2])
        sizes = (
            first[0 if node.attributes.get("transA", 0) else 1],
            second[1 if node.attributes.get("transB", 0) else 0],
        )
        if sizes[0] != sizes[1]:
            raise ModelError(
                f"layer '{node.key}': Gemm sums over {sizes[0]} of its input and {sizes[1]} of its weights; "
                "the model's shapes contradict each other: export it again"
            )


def _bodies(view: ModelView, found: Shapes) -> tuple[dict[str, tuple[Body, ...]], tuple[tuple[str, str], ...]]:
    """The bodies of nodes with control flow, by key, and why others have none."""
    bodies: dict[str, tuple[Body, ...]] = {}
    unreadable: list[tuple[str, str]] = []
    for node in view.graph.node:
        if any(subgraphs(node)) and not is_foreign(node) and all(name in found for name in node.output if name):
            try:
                bodies[node.output[0]] = bodies_of(node, view, found, parse)
            except Unreadable as error:
                unreadable.append((node.output[0], f"{node.op_type}: {error}"))
    return bodies, tuple(unreadable)


def _bias(
    view: ModelView, node: Node, shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, Any]
) -> str | None:
    """The constant added per output channel: a third input, or the only reader of a MatMul being such an Add."""
    if node.op_type in GATES:
        return None
    if node.op_type != "MatMul":
        return node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] in constants else None
    add = view.only_consumer(node.outputs[0])
    if add is None or add.op_type != "Add" or node.inputs[1] not in constants:
        return None
    other = str(add.input[1] if add.input[0] == node.outputs[0] else add.input[0])
    channels = shapes[node.outputs[0]][-1]
    if other in constants and shapes[other] and shapes[other][-1] == channels == int(np.prod(shapes[other])):
        return other
    return None


def _activation_bits(
    groups: Sequence[ActivationGroup],
    nodes: Sequence[Node],
    fused: Mapping[str, str],
    constants: Mapping[str, Any],
    explicit: Mapping[str, int],
) -> dict[str, int]:
    """The width of every tensor of a group: its own quantizer's, else that of a tensor it shares values with.

    Moving, selecting and clipping values commutes with rounding to one grid, so a quantizer before such an operator
    also holds behind it, and one behind all of its readers also holds before it.
    """
    bits = {name: explicit[name] for group in groups for name in group.tensors if name in explicit}
    if not bits:
        return bits
    members = {name for group in groups for name in group.tensors}
    ties = [(node, [name for name in joins(node, fused, constants) if name in members]) for node in nodes]
    for node, tied in ties:
        for name in node.outputs:
            known = [bits[other] for other in tied if other in bits and other not in node.outputs]
            if (
                name in tied
                and name not in bits
                and len(known) == len([other for other in tied if other not in node.outputs]) > 0
            ):
                bits[name] = max(known)
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)
    joined = {node.key: tied for node, tied in ties}
    for node in reversed(nodes):
        for name in joined[node.key]:
            after = [reader.outputs for reader in readers.get(name, [])]
            if name not in bits and after and all(name in joined[reader.key] for reader in readers[name]):
                widths = {bits.get(output, FLOAT_BITS) for outputs in after for output in outputs if output in members}
                if len(widths) == 1 and FLOAT_BITS not in widths:
                    bits[name] = widths.pop()
    return bits


def _tensors(
    view: ModelView,
    nodes: Sequence[Node],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, str],
    bits: Mapping[str, int],
    groups: Sequence[ActivationGroup],
    densities: Mapping[str, float],
) -> dict[str, TensorInfo]:
    group_of = {name: group for group in groups for name in group.tensors}
    kinds = dict.fromkeys((name for node in nodes for name in node.outputs if name), "activation")
    kinds = {**dict.fromkeys(view.inputs, "input"), **kinds, **dict.fromkeys(view.outputs, "output")}
    tensors = {}
    for name, kind in kinds.items():
        if name in shapes:
            density = density_of(name, group_of.get(name), densities, 1.0)
            tensors[name] = TensorInfo(name, shapes[name], dtypes[name], kind, bits.get(name, FLOAT_BITS), density)
    for name in view.initializers:
        tensors[name] = TensorInfo(name, shapes[name], dtypes[name], "constant")
    return tensors


def _weights(
    view: ModelView, layers: Sequence[Layer], tensors: Mapping[str, TensorInfo], widths: _Widths
) -> dict[str, TensorInfo]:
    found = {}
    for layer in layers:
        if layer.weight is not None:
            names = [name for name in (layer.weight, layer.state_weight) if name is not None]
            counts = [_nonzero(view, name, widths) for name in names]
            density = sum(some for some, _ in counts) / max(sum(size for _, size in counts), 1)
            bits = max(widths.weight_bits.get(name, FLOAT_BITS) for name in names)
            for name in names:
                found[name] = replace(tensors[name], bits=bits, density=density)
    return found


def _nonzero(view: ModelView, name: str, widths: _Widths) -> tuple[float, int]:
    """How many weights of an initializer are not zero, and how many there are."""
    size = int(np.prod(view.initializers[name].dims, dtype=np.int64))
    density = widths.weight_density.get(name)
    return (float(np.count_nonzero(view.array(name))), size) if density is None else (density * size, size)


def _weight_sum(view: ModelView, layer: Layer, scales: Mapping[str, NDArray[Any]]) -> int | None:
    """The largest sum of |q| over the weights that one output adds; None where the weights are not integers."""
    scale = None if layer.weight is None else scales.get(layer.weight)
    if layer.weight is None or scale is None or layer.state_weight is not None:
        return None
    values = np.abs(view.array(layer.weight).astype(np.float64))
    codes = np.rint(np.divide(values, scale, out=np.zeros_like(values), where=scale > 0))
    if layer.op_type == "ConvTranspose":
        groups = layer.loop_dims.G
        sums = codes.reshape(groups, codes.shape[0] // groups, codes.shape[1], -1).sum(axis=(1, 3))
    elif layer.op_type == "Conv":
        sums = codes.reshape(codes.shape[0], -1).sum(axis=1)
    else:
        sums = codes.sum(axis=layer.input_axis)
    return int(sums.max(initial=0.0))


def _record(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """A JSON object from the file's metadata; anything else counts as absent."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _pattern(view: ModelView, layer: Layer, claimed: Any) -> Pattern | None:
    """What the file says of a layer's zeros, as far as its weights bear it out."""
    if layer.weight is None:
        return None
    names = (layer.weight,) if layer.state_weight is None else (layer.weight, layer.state_weight)
    whole = view.array(layer.weight)
    if names[1:]:
        whole = np.concatenate([view.array(name) for name in names], axis=layer.input_axis)
    block = BLOCK_NAME.fullmatch(claimed) if isinstance(claimed, str) else None
    if block is not None:
        return Blocks(filled_share(whole, layer, int(block[1])), int(block[1]))
    if not isinstance(claimed, list) or [type(number) for number in claimed] != [int, int] or min(claimed) < 1:
        return None
    kept, run = claimed
    if kept > run or run > LONGEST_RUN:
        return None
    return (kept, run) if follows_pattern(whole, layer, kept, run) else None
