"""Whether the sums of a layer fit the accelerator's accumulators.

A sum of products q_w q_a is at most sum|q_w| a_max in magnitude, over the weights of one output channel; it fits `b`
bits in two's complement where sum|q_w| a_max < 2^(b-1). Activations of `n` bits are taken to reach a_max = 2^n - 1,
which holds with and without sign and zero point. Where the weights' integers are not known, each counts as the
largest of its width.
"""

from __future__ import annotations

from hwc_onnx.cost.types import Accumulator
from hwc_onnx.graph.layer_graph import FLOAT_BITS, Layer


def bits_needed(largest: int) -> int:
    """The fewest bits b in which `largest` < 2^(b-1)."""
    return largest.bit_length() + 1


def largest_sum(
    activation_bits: int, weight_bits: int, products: int, weighted: bool = True, weight_sum: int | None = None
) -> int:
    """Largest magnitude of a sum of `products` products.

    Args:
        activation_bits: width of the first operand.
        weight_bits: width of the second operand.
        products: how many meet in one sum.
        weighted: the second operand is a signed weight, not an activation.
        weight_sum: largest sum of magnitudes of the weights of one output channel, where known.
    """
    if weight_sum is None:
        weight_sum = products * (1 << (weight_bits - 1) if weighted else (1 << weight_bits) - 1)
    return weight_sum * ((1 << activation_bits) - 1)


def accumulator_of(layer: Layer, accumulator_bits: int) -> Accumulator | None:
    """What the layer's sums need; None for a layer with an operand that is not quantized."""
    if max(layer.activation_bits, layer.weight_bits) >= FLOAT_BITS:
        return None
    dims, weighted = layer.loop_dims, layer.weight is not None
    largest = largest_sum(
        layer.activation_bits, layer.weight_bits, dims.C * dims.FY * dims.FX, weighted, layer.weight_sum
    )
    return Accumulator(accumulator_bits, bits_needed(largest), layer.weight_sum is not None)
