"""BatchNormalizations that normalization could not fold into a layer, and their scale and bias once re-estimated.

Such a node stands before its layer (pre-activation networks), or behind a Concat, an Add or an activation function. With the
running mean mu and variance v of training it computes, per channel,

    y = scale (x - mu) / sqrt(v + eps) + bias

Compression moves x, but mu and v still describe the original's x. A corrected output (y - m) a + m - d, with the factor a and
the shift d that bring back the original's mean and spread, is the same node with other constants,

    scale' = scale a        bias' = (bias - m) a + m - d

which is what another mu and v would do; the file has no node more.

Source: statistics of batch normalization taken anew in the compressed network: Sun et al., Hybrid 8-bit Floating Point
Training and Inference for Deep Neural Networks (NeurIPS 2019), and Nagel et al., Overcoming Oscillations in
Quantization-Aware Training (ICML 2022). Here the original's outputs are the target, not the output that training saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.graph.model_view import ModelView, attributes

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

AXIS = 1
"""Of the channels, in the input and the output."""


@dataclass(frozen=True)
class BatchNorm:
    """One node: its output tensor, and the names of its scale and bias [channels], which no other node reads."""

    key: str
    scale: str
    bias: str


def batch_norms(proto: onnx.ModelProto) -> tuple[BatchNorm, ...]:
    """The BatchNormalizations of a model whose constants may change, in its order.

    Those that learn while they run (`training_mode`), have one statistic for each position (`spatial` 0, opset 8) or
    constants that are computed, read elsewhere or not float32 [channels] are left out.
    """
    view = ModelView(proto)
    uses: dict[str, int] = {}
    for name, readers in view.consumers.items():
        uses[name] = sum(max(list(node.input).count(name), 1) for node in readers)
    found = []
    for node in proto.graph.node:
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
            continue
        facts = attributes(node)
        if facts.get("training_mode", 0) or not facts.get("spatial", 1) or any(node.output[1:]):
            continue
        parts = [view.constant(node, place) for place in range(1, 5)]
        if any(part is None or part.dtype != np.float32 or part.ndim != 1 for part in parts):
            continue
        own = all(uses[name] == 1 and name not in view.outputs for name in node.input[1:3])
        if own and node.output[0]:
            found.append(BatchNorm(node.output[0], node.input[1], node.input[2]))
    return tuple(found)


def reestimated(scale: F32, bias: F32, mean: F64, shift: F64, factor: F64) -> tuple[F32, F32]:
    """Scale and bias that turn the node's output y into (y - mean) factor + mean - shift.

    Args:
        scale: as the node has it, [channels].
        bias: as the node has it, [channels].
        mean: of the node's output in the compressed network, [channels].
        shift: what that mean is to lose, [channels].
        factor: what the spread is multiplied with, [channels].
    """
    return (scale * factor).astype(np.float32), ((bias - mean) * factor + mean - shift).astype(np.float32)
