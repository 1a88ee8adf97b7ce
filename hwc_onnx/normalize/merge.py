"""Linear operators behind a layer become part of its weights.

For a layer y = W x + b and a per-channel affine map z = s y + t (BatchNormalization at inference with
s = gamma / sqrt(var + eps), t = beta - s mean; Add, Sub, Mul, Div of a per-channel constant):

    before  z = s (W x + b) + t          after  z = W' x + b',   W'[k] = s[k] W[k],   b' = s b + t

A weight that another node reads too is copied first. Source: Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2, equation (14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.graph.external import is_mapped, map_blocks, spill_blocks
from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.normalize.editing import (
    all_names,
    fresh_name,
    keep_nodes,
    put_initializer,
    put_tensor,
    remove_attributes,
    set_attribute,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Affine:
    """Per-channel scale and shift [K] (float64), and the name of what they came from."""

    scale: Array
    shift: Array
    source: str


def merge_affine(proto: onnx.ModelProto, shapes: Shapes) -> None:
    """Fold every per-channel affine node behind a layer into the layer, in place, until none is left."""
    while _merge_once(proto, shapes):
        pass


def _merge_once(proto: onnx.ModelProto, shapes: Shapes) -> bool:
    view = ModelView(proto)
    taken = all_names(proto.graph)
    touched: set[str] = set()
    gone: set[str] = set()
    for node in proto.graph.node:
        if node.output[0] in touched or not _is_layer(view, node):
            continue
        follower = view.only_consumer(node.output[0])
        if follower is None or node.output[0] not in shapes or follower.output[0] in touched:
            continue
        affine = _affine_of(view, follower, node, shapes)
        if affine is None:
            continue
        touched |= {node.output[0], follower.output[0]}
        if node.op_type == "MatMul":
            if affine.shift.any():
                if follower.op_type == "Add" and (affine.scale == 1).all():
                    continue  # already MatMul, Add
                _scale_weight(proto.graph, view, node, affine.scale, taken)
                bias = fresh_name(taken, f"{affine.source}_shift")
                put_initializer(proto.graph, bias, affine.shift.astype(np.float32))
                follower.CopyFrom(
                    onnx.helper.make_node("Add", [node.output[0], bias], [follower.output[0]], name=follower.name)
                )
                gone.add("")
                continue
            _scale_weight(proto.graph, view, node, affine.scale, taken)
        else:
            _scale_weight(proto.graph, view, node, affine.scale, taken)
            _move_bias(proto.graph, view, node, affine, taken)
        gone.add(follower.output[0])
        node.output[0] = follower.output[0]
        follower.output[0] = ""
    if not gone:
        return False
    keep_nodes(proto.graph, lambda node: node.output[0] != "")
    return True


def _is_layer(view: ModelView, node: onnx.NodeProto) -> bool:
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return False
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.input) < 2:
        return False
    if node.op_type == "Gemm" and (
        attributes(node).get("alpha", 1.0) != 1.0 or attributes(node).get("beta", 1.0) != 1.0
    ):
        return False
    weight = view.constant(node, 1)
    computed_bias = len(node.input) > 2 and bool(node.input[2]) and view.constant(node, 2) is None
    return weight is not None and weight.dtype == np.float32 and weight.ndim > 1 and not computed_bias


def _channels(view: ModelView, node: onnx.NodeProto) -> int:
    weight = view.array(node.input[1])
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int(attributes(node).get("group", 1))
    if node.op_type == "Gemm":
        return int(weight.shape[0 if attributes(node).get("transB", 0) else 1])
    return int(weight.shape[-1])


def _affine_of(view: ModelView, node: onnx.NodeProto, layer: onnx.NodeProto, shapes: Shapes) -> Affine | None:
    """The per-channel map that `node` applies to the layer's output, or None when it is something else."""
    channels = _channels(view, layer)
    shape = shapes[layer.output[0]][0]
    axis = 1 if layer.op_type in ("Conv", "ConvTranspose") else len(shape) - 1
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "BatchNormalization":
        if axis != 1 or len([name for name in node.output if name]) != 1 or attributes(node).get("training_mode", 0):
            return None
        if node.input[0] != layer.output[0]:
            return None
        facts = [view.constant(node, index) for index in range(1, 5)]
        if any(fact is None for fact in facts):
            return None
        gamma, beta, mean, var = (np.asarray(fact, np.float64) for fact in facts)
        scale = gamma / np.sqrt(var + float(attributes(node).get("epsilon", 1e-5)))
        return Affine(scale, beta - scale * mean, node.input[2])
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    place = 0 if node.input[0] == layer.output[0] else 1
    constant = view.constant(node, 1 - place)
    if constant is None or (place == 1 and node.op_type in ("Sub", "Div")) or constant.dtype != np.float32:
        return None
    values = _per_channel(constant.astype(np.float64), len(shape), axis, channels)
    if values is None or (node.op_type == "Div" and (values == 0).any()):
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    name = node.input[1 - place]
    return {
        "Add": lambda: Affine(one, values, name),
        "Sub": lambda: Affine(one, -values, name),
        "Mul": lambda: Affine(values, zero, name),
        "Div": lambda: Affine(1.0 / values, zero, name),
    }[node.op_type]()


def _per_channel(constant: Array, rank: int, axis: int, channels: int) -> Array | None:
    """[K] when a constant broadcasts along the channel axis only, else None."""
    if constant.size == 1:
        return np.full(channels, constant.ravel()[0]) if constant.ndim <= rank else None
    place = axis - (rank - constant.ndim)
    if place < 0 or constant.ndim > rank or constant.size != channels or constant.shape[place] != channels:
        return None
    return constant.ravel()


def _own(graph: onnx.GraphProto, view: ModelView, node: onnx.NodeProto, place: int, taken: set[str]) -> str:
    """The name under which this node alone may keep the constant at `place`."""
    name = str(node.input[place])
    readers = view.consumers.get(name, [])
    uses = sum(list(reader.input).count(name) for reader in readers)
    if uses > 1 or name in view.outputs:
        name = fresh_name(taken, f"{name}_of_{node.name or node.op_type}")
        node.input[place] = name
    return name


def _scale_weight(graph: onnx.GraphProto, view: ModelView, node: onnx.NodeProto, scale: Array, taken: set[str]) -> None:
    if (scale == 1).all():
        return
    weight = view.array(node.input[1])
    if node.op_type == "Conv":
        factors = scale.reshape(-1, *[1] * (weight.ndim - 1))
    elif node.op_type == "ConvTranspose":
        groups = int(attributes(node).get("group", 1))
        rows = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        factors = rows.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    elif node.op_type == "Gemm" and attributes(node).get("transB", 0):
        factors = scale[:, None]
    else:
        factors = scale.reshape(*[1] * (weight.ndim - 1), -1)
    _scale_constant(graph, view, node, factors, taken)


def _scale_constant(
    graph: onnx.GraphProto, view: ModelView, node: onnx.NodeProto, factors: Array, taken: set[str]
) -> None:
    """Multiply the weight by factors that broadcast to it, in double precision, as much at a time as fits a block."""
    weight, mapped = view.array(node.input[1]), is_mapped(view.initializers[node.input[1]])
    name = _own(graph, view, node, 1, taken)

    def scaled(rows: Array, part: slice) -> Array:
        return (rows.astype(np.float64) * (factors[part] if len(factors) > 1 else factors)).astype(weight.dtype)

    if mapped:
        kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
        put_tensor(graph, spill_blocks(name, weight.shape, kind, map_blocks(weight, scaled)))
    else:
        put_initializer(graph, name, scaled(weight, slice(None)))


def _move_bias(graph: onnx.GraphProto, view: ModelView, node: onnx.NodeProto, affine: Affine, taken: set[str]) -> None:
    old = view.constant(node, 2) if len(node.input) > 2 and node.input[2] else None
    channels = len(affine.scale)
    bias = (
        affine.shift
        if old is None
        else affine.scale * np.broadcast_to(np.ravel(old), channels).astype(np.float64) + affine.shift
    )
    if old is None:
        if not bias.any():
            return
        name = fresh_name(taken, f"{node.input[1]}_bias")
        del node.input[2:]
        node.input.append(name)
    else:
        name = _own(graph, view, node, 2, taken)
    put_initializer(graph, name, bias.astype(np.float32))


def plain_gemm(proto: onnx.ModelProto) -> None:
    """Gemm y = alpha A B + beta C becomes y = A (alpha B) + (beta C) with C as a vector [K], in place."""
    view = ModelView(proto)
    taken = all_names(proto.graph)
    for node in proto.graph.node:
        if node.op_type != "Gemm":
            continue
        facts = attributes(node)
        alpha, beta = float(facts.get("alpha", 1.0)), float(facts.get("beta", 1.0))
        weight, bias = view.constant(node, 1), view.constant(node, 2)
        if weight is None:
            continue
        if alpha != 1.0:
            _scale_constant(proto.graph, view, node, np.full((1,) * weight.ndim, alpha), taken)
        remove_attributes(node, ["alpha"] if beta != 1.0 else ["alpha", "beta"])
        if bias is None:
            continue
        channels = _channels(view, node)
        flat = bias.ndim == 1 and bias.size == channels
        if bias.size in (1, channels) and (bias.ndim < 2 or bias.shape[-1] == bias.size) and (beta != 1.0 or not flat):
            values = np.broadcast_to(bias.ravel().astype(np.float64) * beta, channels).astype(bias.dtype)
            put_initializer(proto.graph, _own(proto.graph, view, node, 2, taken), values)
            remove_attributes(node, ["beta"])


def merge_pads(proto: onnx.ModelProto) -> None:
    """Pad with zeros around positions, then Conv, becomes Conv with larger pads, in place.

    before  y = Conv(Pad(x, p), pads=q)    after  y = Conv(x, pads=p+q)
    """
    view = ModelView(proto)
    for node in list(proto.graph.node):
        pads = _zero_pads(view, node)
        readers = view.consumers.get(node.output[0], [])
        if (
            pads is None
            or not readers
            or node.output[0] in view.outputs
            or not all(_paddable(r, node) for r in readers)
        ):
            continue
        rank = len(pads) // 2
        extra = [*pads[2:rank], *pads[rank + 2 :]]
        for reader in readers:
            own = attributes(reader).get("pads", (0,) * len(extra))
            set_attribute(reader, "pads", [first + second for first, second in zip(own, extra, strict=True)])
            reader.input[0] = node.input[0]


def _zero_pads(view: ModelView, node: onnx.NodeProto) -> tuple[int, ...] | None:
    if node.op_type != "Pad" or attributes(node).get("mode", "constant") != "constant" or len(node.input) > 3:
        return None
    value = view.constant(node, 2)
    given = len(node.input) > 2 and bool(node.input[2])
    if (given and (value is None or value.ravel()[0] != 0)) or attributes(node).get("value", 0.0) != 0.0:
        return None
    pads = view.integers(node, 1, "pads")
    if pads is None or min(pads) < 0 or len(pads) < 6:
        return None
    rank = len(pads) // 2
    return pads if not any((*pads[:2], *pads[rank : rank + 2])) else None


def _paddable(reader: onnx.NodeProto, pad: onnx.NodeProto) -> bool:
    return (
        reader.op_type == "Conv"
        and list(reader.input).count(pad.output[0]) == 1
        and reader.input[0] == pad.output[0]
        and attributes(reader).get("auto_pad", "NOTSET") == "NOTSET"
    )


def constants_per_node(proto: onnx.ModelProto) -> None:
    """Give each node its own copy of a float constant with more than one element that several nodes read, in place.

    Exporters share equal biases and normalization vectors between unrelated layers; a rewrite of one must not touch
    the others.
    """
    view = ModelView(proto)
    taken = all_names(proto.graph)
    seen: set[str] = set()
    names: Mapping[str, onnx.TensorProto] = view.initializers
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if name not in names or names[name].data_type != onnx.TensorProto.FLOAT or np.prod(names[name].dims) <= 1:
                continue
            if name not in seen:
                seen.add(name)
                continue
            copy = fresh_name(taken, f"{name}_{len(seen)}" if not node.name else f"{name}_of_{node.name}")
            tensor = onnx.TensorProto.FromString(names[name].SerializeToString())
            tensor.name = copy
            proto.graph.initializer.append(tensor)
            node.input[place] = copy
