"""Which ONNX operators behave alike: the literal tables that fusion, channel and activation groups share."""

from __future__ import annotations

LAYER_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that multiply and accumulate and that are modelled as a `Layer`."""

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Recurrent operators, and how many matrices each direction has side by side in its weight."""

OTHER_MAC_OPS = frozenset({"Einsum", "DeformConv", "Attention", "MultiHeadAttention"})
"""Operators that multiply and accumulate but have no loop nest here; a graph lists them as unmodelled."""

UNARY = frozenset(
    {
        "Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
        "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus",
        "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "QuickGelu", "FastGelu",
    }
)  # fmt: skip
"""One activation in, one out of the same shape, each element by itself."""

BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "PRelu"})
"""Elementwise with broadcasting; PRelu's slope is its second operand."""

POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})
"""Pooling over the spatial axes (2 and up) of a channels-first tensor."""

REDUCTIONS = frozenset(
    {
        "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceSumSquare",
    }
)  # fmt: skip

RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators that only relabel elements."""

JOINS = (
    frozenset(
        {
            "MaxPool", "GlobalMaxPool", "Transpose", "Slice", "Concat", "Split", "Identity", "Gather", "DepthToSpace",
            "SpaceToDepth", "Expand", "Tile",
        }
    )
    | RESHAPES
)  # fmt: skip
"""Operators whose output values all occur in their inputs, so that one quantizer serves both sides.

Pad with zeros, nearest Resize, Relu and Clip join under conditions (see `activation_groups.joins`)."""

FLOAT_READERS = frozenset(
    {
        "LayerNormalization", "RMSNormalization", "SkipLayerNormalization", "GroupNormalization",
        "InstanceNormalization", "Softmax", "LogSoftmax", "Gelu", "FastGelu", "QuickGelu", "Erf",
    }
)  # fmt: skip
"""Operators that need more than 8 bits at their input: their operands stay unquantized unless a layer reads them too.

Source: Liu et al., "Post-Training Quantization for Vision Transformer", NeurIPS 2021, section 3 (Softmax, LayerNorm)."""

NARROW_OPS = (
    frozenset(
        {
            "Add", "Mul", "Sub", "Max", "Min", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "Resize", "Relu",
            "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "BatchNormalization", "Pad",
        }
    )
    | JOINS
)  # fmt: skip
"""Operators between layers that work on quantized operands and make quantizable results."""

SOFTMAXES = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
