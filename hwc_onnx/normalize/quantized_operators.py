"""Quantized operators become quantizers around the float operator, the form in which widths are read back.

    before  y = QLinearConv(x, s_x, z_x, w, s_w, z_w, s_y, z_y, b)
    after   y = Q(Conv(DQ(x, s_x, z_x), DQ(w, s_w, z_w), s_x s_w b), s_y, z_y)

and, for dynamic quantization, where (q, s, z) = DynamicQuantizeLinear(x):

    before  y = Cast(MatMulInteger(q, w, z, z_w)) * (s * s_w)
    after   y = MatMul(DQ(q, s, z), DQ(w, s_w, z_w))

The bias of a ConvInteger, which such graphs round to steps of s * s_w at each run, is added in float.

Both sides compute the same real numbers; the integer kernels round them once more. Source: ONNX operator
specifications of QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger; ONNX Runtime ContribOperators.md for the
operators of com.microsoft. What does not fit one of these patterns is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from hwc_onnx.graph.model_view import ModelView, opset_of
from hwc_onnx.normalize.editing import all_names, forget_shapes, fresh_name, put_initializer
from hwc_onnx.normalize.integer_pattern import INTEGER, integer_pattern

BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
UNARY = {
    "QLinearSigmoid": "Sigmoid", "QLinearLeakyRelu": "LeakyRelu", "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearReduceMean": "ReduceMean", "QLinearSoftmax": "Softmax",
}  # fmt: skip
MOVING = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Identity"})
"""Operators that these models apply to the integers themselves; dequantizing commutes with them."""

OURS = frozenset({"channels_last", "opset"})
"""Attributes that only the quantized operators have."""


@dataclass
class _Change:
    """One rewriting: the view of the old graph, names in use, new nodes so far, dequantized tensors by source, and the
    scale and zero point of the integers that were made so far.
    """

    view: ModelView
    taken: set[str]
    nodes: list[onnx.NodeProto]
    dequantized: dict[tuple[str, ...], str]
    grids: dict[str, tuple[str, str]]

    def dequantize(self, source: str, scale: str, zero: str, axis: int | None = None) -> str:
        """The float tensor that the integers `source` stand for."""
        key = (source, scale, zero, str(axis))
        if key not in self.dequantized:
            name = fresh_name(self.taken, f"{source}_float")
            inputs = [source, scale, zero] if zero else [source, scale]
            node = helper.make_node("DequantizeLinear", inputs, [name], name=name)
            if axis is not None and not self._scalar(scale):
                node.attribute.append(helper.make_attribute("axis", axis))
            self.nodes.append(node)
            self.dequantized[key] = name
        return self.dequantized[key]

    def compute(self, node: onnx.NodeProto, op_type: str, inputs: list[str], output: str) -> None:
        """The float operator with the attributes of the quantized one."""
        made = helper.make_node(op_type, inputs, [output], name=node.name or output)
        made.attribute.extend(a for a in node.attribute if a.name not in OURS)
        self.nodes.append(made)

    def bias(self, name: str, scales: tuple[str, str], factor: float = 1.0) -> str | None:
        """An INT32 bias in steps of the product of two scales as a float constant; None when it is computed."""
        if any(entry not in self.view.initializers for entry in (name, *scales)):
            return None
        first, second = (self.view.array(scale).astype(np.float64).ravel() for scale in scales)
        values = self.view.array(name).astype(np.float64) * first * second * factor
        made = fresh_name(self.taken, f"{name}_float")
        put_initializer(self.view.graph, made, values.astype(np.float32))
        return made

    def _scalar(self, name: str) -> bool:
        return name in self.view.initializers and self.view.array(name).size == 1


def to_quantizers(proto: onnx.ModelProto) -> bool:
    """Rewrite in place; says whether there was anything to rewrite."""
    kinds = {node.op_type for node in proto.graph.node}
    if not kinds & _TABLE.keys() | INTEGER.keys() or opset_of(proto) < 13:
        return False
    view = ModelView(proto)
    change = _Change(view, all_names(proto.graph), [], {}, {})
    skipped: set[int] = set()
    replaced = False
    for node in proto.graph.node:
        if id(node) in skipped:
            continue
        if node.op_type in INTEGER:
            tail = _integer(change, node)
            skipped |= {id(other) for other in tail}
            done = bool(tail)
        elif node.op_type == "QuantizeLinear" and len(node.input) > 1:
            change.grids[node.output[0]] = (node.input[1], _input(node, 2))
            done = False
        elif node.op_type in MOVING:
            done = _moved(change, node)
        else:
            done = node.op_type in _TABLE and _channels_first(node) and _TABLE[node.op_type](change, node)
        replaced |= done
        if not done:
            change.nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del proto.graph.node[:]
    proto.graph.node.extend(change.nodes)
    forget_shapes(proto.graph)
    return replaced


def _channels_first(node: onnx.NodeProto) -> bool:
    return not any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)


def _input(node: onnx.NodeProto, place: int) -> str:
    return str(node.input[place]) if place < len(node.input) else ""


def _conv(change: _Change, node: onnx.NodeProto) -> bool:
    x, xs, xz, w, ws, wz, ys, yz = (_input(node, place) for place in range(8))
    bias = _input(node, 8)
    shift = change.bias(bias, (xs, ws)) if bias else ""
    if shift is None:
        return False
    operands = [change.dequantize(x, xs, xz), change.dequantize(w, ws, wz, 0), *([shift] if shift else [])]
    return _finish(change, node, "Conv", operands, ys, yz)


def _matmul(change: _Change, node: onnx.NodeProto) -> bool:
    a, sa, za, b, sb, zb, ys, yz = (_input(node, place) for place in range(8))
    rank = len(change.view.initializers[b].dims) if b in change.view.initializers else 2
    operands = [change.dequantize(a, sa, za), change.dequantize(b, sb, zb, rank - 1)]
    return _finish(change, node, "MatMul", operands, ys, yz)


def _gemm(change: _Change, node: onnx.NodeProto) -> bool:
    a, sa, za, b, sb, zb, c, ys, yz = (_input(node, place) for place in range(9))
    facts = {attribute.name: attribute for attribute in node.attribute}
    alpha = facts["alpha"].f if "alpha" in facts else 1.0
    shift = change.bias(c, (sa, sb), alpha) if c else ""
    if shift is None:
        return False
    axis = 0 if "transB" in facts and facts["transB"].i else 1
    operands = [change.dequantize(a, sa, za), change.dequantize(b, sb, zb, axis), *([shift] if shift else [])]
    if not ys:
        change.compute(node, "Gemm", operands, node.output[0])
        return True
    return _finish(change, node, "Gemm", operands, ys, yz)


def _binary(change: _Change, node: onnx.NodeProto) -> bool:
    a, sa, za, b, sb, zb, ys, yz = (_input(node, place) for place in range(8))
    operands = [change.dequantize(a, sa, za), change.dequantize(b, sb, zb)]
    return _finish(change, node, BINARY[node.op_type], operands, ys, yz)


def _unary(change: _Change, node: onnx.NodeProto) -> bool:
    x, xs, xz, ys, yz = (_input(node, place) for place in range(5))
    return _finish(change, node, UNARY[node.op_type], [change.dequantize(x, xs, xz)], ys, yz)


def _moved(change: _Change, node: onnx.NodeProto) -> bool:
    grid = change.grids.get(node.input[0])
    if grid is None or len([name for name in node.output if name]) != 1:
        return False
    operands = [change.dequantize(node.input[0], *grid), *node.input[1:]]
    return _finish(change, node, node.op_type, operands, *grid)


def _concat(change: _Change, node: onnx.NodeProto) -> bool:
    parts = [list(node.input[start : start + 3]) for start in range(2, len(node.input), 3)]
    operands = [change.dequantize(*part) for part in parts]
    return _finish(change, node, "Concat", operands, _input(node, 0), _input(node, 1))


def _finish(
    change: _Change, node: onnx.NodeProto, op_type: str, operands: list[str], scale: str, zero: str
) -> bool:
    """Float operator, then the quantizer of its result."""
    output = node.output[0]
    result = fresh_name(change.taken, f"{output}_float")
    change.compute(node, op_type, operands, result)
    inputs = [result, scale, zero] if zero else [result, scale]
    change.nodes.append(helper.make_node("QuantizeLinear", inputs, [output], name=f"{output}_QuantizeLinear"))
    change.grids[output] = (scale, zero)
    return True


_TABLE: dict[str, Callable[[_Change, onnx.NodeProto], bool]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(UNARY, _unary),
}


def _integer(change: _Change, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that the float operator replaces behind an integer one; empty when the pattern is another."""
    found = integer_pattern(change.view, node)
    if found is None:
        return []
    rank = len(change.view.initializers[node.input[1]].dims)
    data = change.dequantize(node.input[0], found.data_scale, node.input[2])
    constant = change.dequantize(node.input[1], found.weight_scale, _input(node, 3), rank - 1)
    change.compute(node, INTEGER[node.op_type], [data, constant, *found.bias], found.tail[-1].output[0])
    return found.tail
