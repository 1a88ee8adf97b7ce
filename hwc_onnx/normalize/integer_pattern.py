"""What ONNX Runtime's dynamic quantization puts around an integer operator, recognised as a whole.

    q, s, z = DynamicQuantizeLinear(x)
    y = Cast(ConvInteger(q, w, z, z_w) [+ bias in steps]) * (s * s_w)

A bias in steps is a float constant that the graph rounds at each run, because s is known only then:
Reshape(Cast(Floor(Div(bias, s * s_w))), [1, -1, 1, 1]), as ONNX Runtime's first quantizer wrote it. Source: ONNX operator
specifications of DynamicQuantizeLinear, ConvInteger and MatMulInteger.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from hwc_onnx.graph.model_view import ModelView

INTEGER = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
"""Integer operators and those that compute the same on real numbers."""


@dataclass(frozen=True)
class IntegerPattern:
    """The scales of both operands, the float bias [K] if there is one, and the nodes behind the operator, last one last."""

    data_scale: str
    weight_scale: str
    bias: list[str]
    tail: list[onnx.NodeProto]


def integer_pattern(view: ModelView, node: onnx.NodeProto) -> IntegerPattern | None:
    """The pattern around a ConvInteger or MatMulInteger with a constant weight, None when it is another."""
    dynamic = view.producer.get(node.input[0])
    if dynamic is None or dynamic.op_type != "DynamicQuantizeLinear" or node.input[1] not in view.initializers:
        return None
    if len(node.input) < 3 or node.input[2] != dynamic.output[2]:
        return None
    added = view.only_consumer(node.output[0])
    added = added if added is not None and added.op_type == "Add" else None
    cast = view.only_consumer((added or node).output[0])
    scaled = view.only_consumer(cast.output[0]) if cast is not None and cast.op_type == "Cast" else None
    if cast is None or scaled is None or scaled.op_type != "Mul":
        return None
    factor = view.producer.get(next((name for name in scaled.input if name != cast.output[0]), ""))
    if factor is None or factor.op_type != "Mul" or dynamic.output[1] not in factor.input:
        return None
    scale = next((name for name in factor.input if name != dynamic.output[1]), "")
    if scale not in view.initializers:
        return None
    values = view.array(scale)
    if values.size > 1 and (node.op_type == "ConvInteger" or values.ndim != 1):
        return None
    if added is None:
        return IntegerPattern(dynamic.output[1], scale, [], [cast, scaled])
    bias = _rounded_bias(view, added, node, set(factor.input))
    return IntegerPattern(dynamic.output[1], scale, [bias], [added, cast, scaled]) if bias else None


def _rounded_bias(view: ModelView, added: onnx.NodeProto, node: onnx.NodeProto, scales: set[str]) -> str:
    """The constant [K] whose steps of the product of `scales` are added to a ConvInteger, or ""."""
    name = next((operand for operand in added.input if operand != node.output[0]), "")
    for kinds in (("Reshape",), ("Cast",), ("Floor", "Round")):
        maker = view.producer.get(name)
        if maker is None or maker.op_type not in kinds:
            return ""
        name = maker.input[0]
    quotient = view.producer.get(name)
    if node.op_type != "ConvInteger" or quotient is None or quotient.op_type != "Div":
        return ""
    step = view.producer.get(quotient.input[1])
    bias = view.initializers.get(quotient.input[0])
    if step is None or step.op_type != "Mul" or set(step.input) != scales or bias is None:
        return ""
    return str(quotient.input[0]) if list(bias.dims) == [view.initializers[node.input[1]].dims[0]] else ""
