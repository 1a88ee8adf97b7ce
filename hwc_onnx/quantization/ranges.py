"""From a tensor's histogram to its quantizer: per-tensor affine, zero exactly representable.

Methods: "minmax" covers every value seen; "percentile" cuts the same small share off each tail; "mse" minimises the
mean squared error of rounding and clipping over shrunken ranges, each end on its own (Nagel et al., "A White Paper on
Neural Network Quantization", 2021, section 3.1); "entropy" minimises the relative entropy of what is left (entropy.py).

Scales that are powers of two turn requantization into a shift (Jain et al., "Trained Quantization Thresholds", MLSys 2020,
section 3). From the scale that a method would take, "minmax" and "percentile" go to the next power, so that their range
stays covered; "mse" and "entropy" to the better of the two next to it, with the zero point that suits it best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.quantization.entropy import divergence, least_divergence
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams

Method = Literal["minmax", "percentile", "mse", "entropy"]

METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse", "entropy")
PERCENTILE = 0.9999
_SHRINK = np.geomspace(1.0, 0.01, 93)
_REFINE = np.linspace(1.05, 0.95, 21)


def activation_params(
    histogram: StreamingHistogram,
    bits: int,
    method: Method = "mse",
    symmetric: bool = False,
    power_of_two: bool = False,
    still: float = 1.0,
) -> QuantParams:
    """Quantizer of one stored tensor.

    Args:
        histogram: values seen in calibration.
        bits: width, 2..8.
        method: how the range is chosen.
        symmetric: signed codes with zero point 0 instead of unsigned codes with a free zero point.
        power_of_two: only such scales.
        still: the scale of a tensor that was never seen or is always zero (the next lower power of two where only such are
            wanted).
    """
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if not high > low:
        return _params(2.0 ** math.floor(math.log2(still)) if power_of_two else still, 0, bits, symmetric)
    if method == "percentile":
        low = min(histogram.quantile(1.0 - PERCENTILE), 0.0)
        high = max(histogram.quantile(PERCENTILE), 0.0)
    elif method in ("mse", "entropy") and high > low:
        if method == "mse":
            low, high = _search(histogram, low, high, bits, symmetric)
        else:
            make = partial(range_params, bits=bits, symmetric=symmetric)
            low, high = least_divergence(histogram, make, symmetric)
        params = range_params(low, high, bits, symmetric)
        return _neighbour(histogram, params, method) if power_of_two else params
    return range_params(low, high, bits, symmetric, power_of_two)


def range_params(
    low: float, high: float, bits: int, symmetric: bool = False, power_of_two: bool = False
) -> QuantParams:
    """Quantizer that covers [low, high] (widened to include 0), zero on an integer."""
    low, high = min(low, 0.0), max(high, 0.0)
    levels = (1 << bits) - 1
    scale = max(-low, high) / ((1 << (bits - 1)) - 1) if symmetric else (high - low) / levels
    if not scale > 0:
        return _params(1.0, 0, bits, symmetric)
    if power_of_two:
        scale = 2.0 ** math.ceil(math.log2(scale))
    zero = 0 if symmetric else min(max(round(-low / scale), 0), levels)
    return _params(scale, zero, bits, symmetric)


def _neighbour(histogram: StreamingHistogram, params: QuantParams, method: Method) -> QuantParams:
    """The quantizer whose scale is a power of two next to that of `params`, of least error by `method`."""
    exponent = math.log2(float(params.scale))
    zeros = (0,) if params.signed else range(params.qmax + 1)
    powers = sorted({math.floor(exponent), math.ceil(exponent)})
    options = [_params(2.0**power, zero, params.bits, params.signed) for power in powers for zero in zeros]
    if method == "entropy":
        return min(options, key=lambda option: divergence(histogram, option))
    return options[int(np.argmin(_errors(histogram, options)))]


def _search(
    histogram: StreamingHistogram, low: float, high: float, bits: int, symmetric: bool
) -> tuple[float, float]:
    """Shrink both ends together, then each on its own, then both finely.

    A range a little wider than the values seen can be the best: its grid may meet a value that is frequent.
    """
    found = _best(histogram, low * _SHRINK, high * _SHRINK, bits, symmetric)
    if low < 0.0 < high and not symmetric:
        found = _best(histogram, low * _SHRINK, np.full_like(_SHRINK, found[1]), bits, symmetric)
        found = _best(histogram, np.full_like(_SHRINK, found[0]), high * _SHRINK, bits, symmetric)
    return _best(histogram, found[0] * _REFINE, found[1] * _REFINE, bits, symmetric)


def _best(
    histogram: StreamingHistogram, lows: NDArray[np.float64], highs: NDArray[np.float64], bits: int, symmetric: bool
) -> tuple[float, float]:
    """The range [low, high] of least error; the widest of equals."""
    options = [range_params(float(low), float(high), bits, symmetric) for low, high in zip(lows, highs, strict=True)]
    place = int(np.argmin(_errors(histogram, options)))
    return float(lows[place]), float(highs[place])


def _errors(histogram: StreamingHistogram, options: Sequence[QuantParams]) -> NDArray[np.float64]:
    """Mean squared error of each of these quantizers, which have one width: [n]."""
    scales = np.array([float(params.scale) for params in options])
    zeros = np.array([int(params.zero_point) for params in options])
    return histogram.squared_errors(scales, options[0].qmin - zeros, options[0].qmax - zeros)


def _params(scale: float, zero: int, bits: int, signed: bool) -> QuantParams:
    smallest = float(np.finfo(np.float32).tiny) * 2.0**20
    value = max(scale, smallest) if math.isfinite(scale) else 1.0
    return QuantParams(np.array(value, np.float32), np.array(zero, np.int32), bits, signed, None)
