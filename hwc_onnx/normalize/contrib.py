"""Fused operators of ONNX Runtime's own domain become the standard operators that they were made of.

Files that ONNX Runtime or its transformer optimizer wrote hold FusedConv, FusedGemm, FusedMatMul, Gelu, BiasGelu, FastGelu,
QuickGelu, SkipLayerNormalization, SkipSimplifiedLayerNormalization, SimplifiedLayerNormalization, EmbedLayerNormalization,
Attention and MultiHeadAttention (the last two: `contrib_attention.py`). Source of all formulas:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt

import onnx

from hwc_onnx.graph.infer import Shapes
from hwc_onnx.graph.model_view import ModelView, attributes
from hwc_onnx.normalize.contrib_attention import attention, multi_head_attention
from hwc_onnx.normalize.writing import Writer

DOMAIN = "com.microsoft"
RMS_OPSET = 23
AXES_AS_OPERAND = 18
"""From this opset on ReduceMean is told its axes by an operand."""

ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Activation of a fused layer -> what its parameters are called, in order."""

Rule = Callable[[Writer, onnx.NodeProto, ModelView, Shapes], bool]
"""Writes a node anew; False, before anything was written, for a form that it cannot write."""


def write_contrib(proto: onnx.ModelProto, shapes: Shapes) -> bool:
    """Write every fused operator out that can be, in place; whether there was one."""
    view = ModelView(proto)
    writer = Writer(proto.graph)
    for node in view.graph.node:
        rule = RULES.get(node.op_type) if is_contrib(node) else None
        writer.base = node.output[0]
        if rule is None or not rule(writer, node, view, shapes):
            writer.keep(node)
    return writer.finish()


def is_contrib(node: onnx.NodeProto) -> bool:
    """Whether a node is one of ONNX Runtime's own; one of them goes under the standard domain."""
    return node.domain == DOMAIN or node.op_type == "SimplifiedLayerNormalization"


def _gelu(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """x / 2 (1 + erf(x / sqrt 2)) of x, or of x + bias."""
    x = _with_bias(writer, node)
    erf = writer.node("Erf", [writer.node("Div", [x, writer.number(sqrt(2), "root")], "divided")], "erf")
    gate = writer.node("Add", [erf, writer.number(1, "one")], "gate")
    product = writer.node("Mul", [x, gate], "gated")
    writer.node("Mul", [product, writer.number(0.5, "half")], "", node.output[0])
    return True


def _fast_gelu(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) of x, or of x + bias."""
    x = _with_bias(writer, node)
    cube = writer.node("Mul", [writer.node("Mul", [x, x], "square"), x], "cube")
    small = writer.node("Mul", [cube, writer.number(0.044715, "share")], "small")
    inner = writer.node("Mul", [writer.node("Add", [x, small], "sum"), writer.number(sqrt(2 / pi), "slope")], "inner")
    gate = writer.node("Add", [writer.node("Tanh", [inner], "tanh"), writer.number(1, "one")], "gate")
    product = writer.node("Mul", [x, gate], "gated")
    writer.node("Mul", [product, writer.number(0.5, "half")], "", node.output[0])
    return True


def _quick_gelu(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """x sigmoid(alpha x)."""
    alpha = writer.number(attributes(node).get("alpha", 1.702), "alpha")
    gate = writer.node("Sigmoid", [writer.node("Mul", [node.input[0], alpha], "scaled")], "gate")
    writer.node("Mul", [node.input[0], gate], "", node.output[0])
    return True


def _with_bias(writer: Writer, node: onnx.NodeProto) -> str:
    given = [name for name in node.input if name]
    return writer.node("Add", given, "biased") if len(given) > 1 else given[0]


def _skip_norm(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """Normalized x + skip + bias over the last axis; the fourth result is the sum itself."""
    if any(node.output[1:3]):
        return False
    x, skip, scale, *rest = node.input
    simple = node.op_type == "SkipSimplifiedLayerNormalization"
    shift, bias = ("", *rest, "")[:2] if simple else (*rest, "", "")[:2]
    if bias:
        # the bias belongs to the layer that made one of the two
        made = view.producer.get(skip)
        swapped = made is not None and made.op_type == "MatMul"
        x, skip = (skip, x) if swapped else (x, skip)
        x = writer.node("Add", [x, bias], "biased")
    total = writer.node("Add", [x, skip], "sum", node.output[3] if len(node.output) > 3 else "")
    _normalize(writer, view, (total, scale, shift), node, simple)
    return True


def _simple_norm(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """x / sqrt(mean x^2 + epsilon) times a scale, over the last axis."""
    if any(node.output[1:]) or attributes(node).get("axis", -1) not in (-1, len(shapes.get(node.input[0], ((),))[0]) - 1):
        return False
    _normalize(writer, view, (node.input[0], node.input[1], ""), node, True)
    return True


def _normalize(
    writer: Writer, view: ModelView, operands: tuple[str, str, str], node: onnx.NodeProto, simple: bool
) -> None:
    """LayerNormalization of (x, scale, shift), or without mean and shift if it is a simple one."""
    x, scale, shift = operands
    out, epsilon = node.output[0], attributes(node).get("epsilon", 1e-12 if node.op_type.startswith("Skip") else 1e-5)
    given = [x, scale, shift] if shift else [x, scale]
    if not simple or view.opset >= RMS_OPSET:
        kind = "RMSNormalization" if simple else "LayerNormalization"
        writer.node(kind, given, "", out, axis=-1, epsilon=epsilon)
        return
    square = writer.node("Mul", [x, x], "square")
    if view.opset >= AXES_AS_OPERAND:
        mean = writer.node("ReduceMean", [square, writer.sizes([-1], "axes")], "mean")
    else:
        mean = writer.node("ReduceMean", [square], "mean", axes=[-1])
    root = writer.node("Sqrt", [writer.node("Add", [mean, writer.number(epsilon, "epsilon")], "above")], "root")
    writer.node("Mul", [writer.node("Div", [x, root], "normal"), scale], "", out)


def _embed(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """Normalized sum of the rows picked from tables of words, positions and segments."""
    ids, segments, words, positions, table, scale, shift, mask, places = (*node.input, *[""] * 9)[:9]
    _, lengths, total = (*node.output, "", "")[:3]
    if lengths or mask or ids not in shapes:
        return False
    found = writer.node("Gather", [words, ids], "words", axis=0)
    if not places:
        places = writer.sizes(list(range(shapes[ids][0][1])), "places")
    row = writer.node("Gather", [positions, places], "positions", axis=0)
    if segments:
        found = writer.node("Add", [found, writer.node("Gather", [table, segments], "segments", axis=0)], "with_segments")
    found = writer.node("Add", [found, row], "sum", total)
    epsilon = attributes(node).get("epsilon", 1e-12)
    writer.node("LayerNormalization", [found, scale, shift], "", node.output[0], axis=-1, epsilon=epsilon)
    return True


def _product(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """alpha A B, either operand turned."""
    facts = attributes(node)
    if any(facts.get(f"transBatch{side}", 0) for side in "AB"):
        return False
    if any(len(shapes.get(name, ((),))[0]) < 2 for name in node.input):
        return False
    operands = []
    for name, side in zip(node.input, "AB", strict=True):
        rank = len(shapes[name][0])
        turned = [*range(rank - 2), rank - 1, rank - 2]
        operands.append(writer.node("Transpose", [name], f"{side}_turned", perm=turned) if facts.get(f"trans{side}", 0) else name)
    alpha = facts.get("alpha", 1.0)
    if alpha == 1.0:
        writer.node("MatMul", operands, "", node.output[0])
    else:
        product = writer.node("MatMul", operands, "product")
        writer.node("Mul", [product, writer.number(alpha, "alpha")], "", node.output[0])
    return True


def _layer(writer: Writer, node: onnx.NodeProto, view: ModelView, shapes: Shapes) -> bool:
    """Conv or Gemm, plus a fourth operand, then an activation."""
    facts = attributes(node)
    kind = facts.pop("activation", "")
    if kind and kind not in ACTIVATIONS:
        return False
    numbers = facts.pop("activation_params", ())
    named = [facts.pop(f"activation_{name}", None) for name in ("alpha", "beta", "gamma")]
    numbers = [float(number) for number in numbers or named if number is not None]
    added = node.input[3] if len(node.input) > 3 else ""
    last = "" if kind or added else node.output[0]
    found = writer.node(node.op_type.removeprefix("Fused"), list(node.input[:3]), "layer", last, **facts)
    if added:
        found = writer.node("Add", [found, added], "sum", "" if kind else node.output[0])
    if kind == "Clip":
        bounds = [writer.number(number, name) for number, name in zip(numbers, ("min", "max"), strict=True)]
        writer.node("Clip", [found, *bounds], "", node.output[0])
    elif kind:
        writer.node(kind, [found], "", node.output[0], **dict(zip(ACTIVATIONS[kind], numbers, strict=False)))
    return True


RULES: Mapping[str, Rule] = {
    "Attention": attention,
    "MultiHeadAttention": multi_head_attention,
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "SimplifiedLayerNormalization": _simple_norm,
    "EmbedLayerNormalization": _embed,
    "FusedMatMul": _product,
    "FusedConv": _layer,
    "FusedGemm": _layer,
}
"""Operator of ONNX Runtime -> rule; all others stay."""
