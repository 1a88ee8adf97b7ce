"""Nodes that do not multiply and accumulate: element operations in the post-processing unit, and traffic.

The table says how many element operations and table look-ups an operator takes per element of its output or input.
Figures are assumed from how such units are built (one pass per comparison, addition or multiplication; exponentials,
error functions and reciprocals from a table with interpolation); traffic is counted from the tensors themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hwc_onnx.graph.layer_graph import Node, TensorInfo


@dataclass(frozen=True)
class Effort:
    """Element operations and look-ups per element of the output ("out") or of the first input ("in")."""

    ops: float
    lookups: float = 0.0
    per: Literal["out", "in"] = "out"


FREE_OPS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Operators that relabel a stored tensor: no work, no traffic, no second copy."""

NOTHING_OPS = frozenset({"Shape", "Constant", "ConstantOfShape", "Range", "Size", "NonZero"})
"""Operators on shapes, run by the host."""

EFFORTS: Mapping[str, Effort] = {
    **dict.fromkeys(("Relu", "Abs", "Neg", "Ceil", "Floor", "Round", "Sign", "Cast", "Not"), Effort(1)),
    **dict.fromkeys(("Clip", "LeakyRelu", "PRelu", "ThresholdedRelu", "HardSigmoid"), Effort(2)),
    "HardSwish": Effort(4),
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean", "And", "Or", "Xor", "Equal", "Less", "Greater",
                     "LessOrEqual", "GreaterOrEqual", "Where", "BitShift", "Mod"), Effort(1)),
    "Div": Effort(1, 1),
    **dict.fromkeys(("Sigmoid", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Softplus", "Softsign", "Sin", "Cos",
                     "Pow"), Effort(2, 1)),
    **dict.fromkeys(("Gelu", "FastGelu", "QuickGelu", "Elu", "Celu", "Selu", "Mish", "Swish"), Effort(4, 1)),
    "BatchNormalization": Effort(2),
    **dict.fromkeys(("Softmax", "LogSoftmax"), Effort(4, 1)),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization",
                     "SkipLayerNormalization", "LpNormalization", "MeanVarianceNormalization"), Effort(6, 0)),
    "LRN": Effort(8, 1),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "ReduceMean", "ReduceSum", "ReduceMax",
                     "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
                     "ReduceSumSquare", "ArgMax", "ArgMin", "TopK", "CumSum"), Effort(1, 0, "in")),
    **dict.fromkeys(("Transpose", "Concat", "Split", "Slice", "Pad", "Gather", "GatherElements", "GatherND",
                     "ScatterND", "ScatterElements", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "OneHot",
                     "ReverseSequence", "Compress", "Trilu"), Effort(0)),
}  # fmt: skip
"""Work by operator; pooling and resizing depend on attributes (see `effort`)."""

WINDOW_OPS = frozenset({"MaxPool", "AveragePool", "LpPool"})

PICKING_OPS = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split", "Compress"})
"""Operators that take some elements of their first operand, each of them once for each place it goes to."""

CROPPING_OPS = frozenset({"Pad", "Resize", "Upsample"})
"""Operators that leave elements of their first operand out where the result is smaller along an axis."""

REPLACING_OPS = frozenset({"ScatterND", "ScatterElements"})
"""Operators that copy their first operand but for the elements that the third one replaces."""


def effort(node: Node) -> Effort | None:
    """Work of one node, or None when the operator is not known (its traffic is still counted)."""
    if node.op_type in FREE_OPS or node.op_type in NOTHING_OPS:
        return Effort(0)
    if node.op_type in WINDOW_OPS:
        taps = math.prod(int(n) for n in node.attributes.get("kernel_shape", (1,)))
        return Effort(max(1, taps - 1))
    if node.op_type in ("Resize", "Upsample"):
        mode = node.attributes.get("mode", "nearest")
        return Effort(0 if mode in ("nearest", b"nearest") else 4)
    if node.domain not in ("", "ai.onnx", "com.microsoft"):
        return None
    return EFFORTS.get(node.op_type)


def elements(info: TensorInfo) -> int:
    """Elements of a tensor."""
    return math.prod(info.shape)


def taken(node: Node, name: str, tensors: Mapping[str, TensorInfo]) -> int:
    """Elements of its operand `name` that a node reads: all of them, unless the operator picks some."""
    every = elements(tensors[name])
    results = [tensors[output] for output in node.outputs if output in tensors]
    if name != node.inputs[0] or name in node.inputs[1:] or not results:
        return every
    if node.op_type in PICKING_OPS:
        return sum(elements(result) for result in results)
    if node.op_type in REPLACING_OPS:
        kept = node.attributes.get("reduction", "none") in ("none", b"none")
        updates = tensors.get(node.inputs[2])
        return max(0, every - elements(updates)) if kept and updates is not None else every
    if crops(node) and len(results[0].shape) == len(tensors[name].shape):
        return math.prod(min(pair) for pair in zip(tensors[name].shape, results[0].shape, strict=True))
    return every


def crops(node: Node) -> bool:
    """Whether a node leaves elements out where its result is smaller; an interpolation reads them all."""
    found = effort(node)
    return node.op_type in CROPPING_OPS and found is not None and not found.ops


def picks_rows(node: Node, name: str) -> bool:
    """Whether `name` is what a Gather takes its rows from: a constant there is a table of weights."""
    return node.op_type in PICKING_OPS and name == node.inputs[0] and name not in node.inputs[1:]


def work(node: Node, tensors: Mapping[str, TensorInfo]) -> tuple[float, float]:
    """Element operations and look-ups of a node (none for an unknown operator)."""
    found = effort(node)
    if found is None or not (found.ops or found.lookups):
        return 0.0, 0.0
    name = node.outputs[0] if found.per == "out" else node.inputs[0]
    info = tensors.get(name)
    if info is None:
        return 0.0, 0.0
    n = elements(info)
    return n * found.ops, n * found.lookups
