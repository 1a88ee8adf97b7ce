"""Biases as integer hardware adds them: INT32 multiples of (input scale * weight scale).

ONNX Runtime turns the float bias of a quantized Conv, ConvTranspose or Gemm into such integers at optimisation level
BASIC and above, and leaves it alone at DISABLE_ALL. A bias that lies on the grid from the start gives the same result
at every level, and is what an accelerator with 32-bit partial sums computes.

A scale that is tiny against the bias would overflow the 32 bits (an all-zero channel with scale 1e-9 loses a bias of
0.9 altogether), hence the floor: weight scale >= |bias| / (input scale * 2^30).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEADROOM = float(2**30)
"""Largest integer allowed for a bias: half of INT32, the rest is left for the partial sums."""


def bias_steps(weight_scale: NDArray[np.float32], input_scale: float, channels: int) -> NDArray[np.float32]:
    """Grid step of each output channel [channels]; a shorter scale (groups of a ConvTranspose share it) repeats."""
    steps = np.float32(input_scale) * weight_scale.reshape(-1)
    return np.tile(steps, channels // steps.size).astype(np.float32)


def round_bias(bias: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.float32]:
    """`bias` [channels] moved to the nearest multiple of `steps` [channels]."""
    rounded: NDArray[np.float32] = (np.rint(bias / steps).astype(np.int64) * steps).astype(np.float32)
    return rounded


def scale_floor(
    bias: NDArray[np.float32], input_scale: float, scales: int, headroom: float = HEADROOM
) -> NDArray[np.float64]:
    """Smallest weight scale [scales] that carries `bias` [channels, a multiple of `scales`] in INT32."""
    largest = np.abs(bias.astype(np.float64)).reshape(-1, scales).max(axis=0)
    floor: NDArray[np.float64] = largest / (input_scale * headroom)
    return floor
