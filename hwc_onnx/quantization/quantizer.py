"""Affine quantization: real = scale * (q - zero_point), q an integer of a few bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class QuantParams:
    """Scale [channels] or [] (float32), zero point of the same shape (int32), width, signedness and channel axis.

    `axis` is None for per-tensor parameters. `qmin`/`qmax` bound the integers actually used.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    bits: int
    signed: bool
    axis: int | None

    @property
    def qmin(self) -> int:
        """Smallest integer of the width."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest integer of the width."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


@dataclass(frozen=True)
class QuantizedWeight:
    """What one layer's weight becomes: integer `codes` in the ONNX layout, their parameters and the new bias.

    `bias` is float32 [output channels] or None when the layer has and needs none. A layer left at 16 bits has
    `params` None and float32 `codes`. `weight_density` is the share of codes that are not zero.
    """

    codes: NDArray[np.int8] | NDArray[np.float32]
    params: QuantParams | None
    bias: NDArray[np.float32] | None
    weight_density: float


def quantize(values: NDArray[np.floating], params: QuantParams) -> NDArray[np.int32]:
    """Integers of `values` [any shape]: round half to even, then limit to the width, as ONNX QuantizeLinear does."""
    scale, zero_point = _broadcast(params, values.ndim)
    codes = np.rint(values / scale) + zero_point
    limited: NDArray[np.int32] = np.clip(codes, params.qmin, params.qmax).astype(np.int32)
    return limited


def dequantize(codes: NDArray[np.integer], params: QuantParams) -> NDArray[np.float32]:
    """Real values of integer `codes` [any shape], in float32."""
    scale, zero_point = _broadcast(params, codes.ndim)
    return ((codes.astype(np.int32) - zero_point) * scale).astype(np.float32)


def _broadcast(params: QuantParams, rank: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Scale and zero point shaped to broadcast against a tensor of `rank` axes."""
    if params.axis is None:
        return params.scale.reshape(()), params.zero_point.reshape(())
    shape = [1] * rank
    shape[params.axis] = -1
    return params.scale.reshape(shape), params.zero_point.reshape(shape)
