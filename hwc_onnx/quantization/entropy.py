"""Ranges by relative entropy: the clipping thresholds whose quantized histogram tells least from the clipped one.

For one quantizer, P is the histogram held to the quantizer's range: what is clipped joins the outermost bin inside. Q is
what the integers keep of it: the values in range that share an integer, spread evenly over the bins that hold any. The
range taken is that of least KL(P || Q). Rounding pulls thresholds in, the clipped values, which Q lacks, push them out.

Exact zeros are left out of both: every quantizer here gives them back as they are, so they favour no threshold.

Source: Migacz, "8-bit Inference with TensorRT" (GTC 2017). There the range is symmetric and the bins are divided evenly
among 128 levels; here bins go to the integers that they round to, and the two ends may lie differently far from zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantParams

F64 = NDArray[np.float64]

TOGETHER = 16
"""Thresholds on each side that are tried with one another, beside equal distances from zero."""

ALONE = 256
"""Distances from zero tried on both sides alike, and then on each side while the other stays."""

EDGE = 1e-6
"""Relative rounding error of float32 scales: a bin that begins where the range ends lies outside."""


def divergence(histogram: StreamingHistogram, params: QuantParams) -> float:
    """KL(P || Q) in nats of one quantizer; infinite where no value lies in its range, 0.0 for nothing but zeros."""
    centers, counts = histogram.centers()
    if not centers.size:
        return 0.0
    scale, zero = float(params.scale), int(params.zero_point)
    lowest, highest = params.qmin - zero, params.qmax - zero
    reach = 0.5 * histogram.width
    inside = (centers - reach < highest * scale * (1 + EDGE)) & (centers + reach > lowest * scale * (1 + EDGE))
    first, last = int(inside.argmax()), len(inside) - int(inside[::-1].argmax())
    if not inside[first]:
        return math.inf
    held = counts[first:last].astype(np.float64)
    codes = np.clip(np.rint(centers[first:last] / scale), lowest, highest).astype(np.int64) - lowest
    share = (np.bincount(codes, held) / np.maximum(np.bincount(codes), 1))[codes]
    kept = held.sum()
    held[0] += counts[:first].sum()
    held[-1] += counts[last:].sum()
    p, q = held / held.sum(), share / kept
    return float((p * np.log(p / q)).sum())


def least_divergence(
    histogram: StreamingHistogram, make: Callable[[float, float], QuantParams], mirrored: bool
) -> tuple[float, float]:
    """The range [low, high], 0 included, of least divergence; the widest of equals.

    Args:
        histogram: values of the tensor, not all zero.
        make: the quantizer of a range.
        mirrored: the two ends are tried at the same distance from zero, as a symmetric quantizer has them.

    Thresholds are middles of occupied bins, and the extremes. No step of a quantizer is finer than a bin: below that the
    histogram does not show what rounding does, and only the full range is taken.
    """
    below, above = _thresholds(histogram, -1.0), _thresholds(histogram, 1.0)
    reach = np.union1d(below, above)[::-1]
    far_ends = _some(reach[reach > 0], ALONE)
    if mirrored:
        return _least(histogram, make, ((-far, far) for far in far_ends))
    alike = ((-min(far, below[0]), min(far, above[0])) for far in far_ends)
    unlike = ((-low, high) for low in _some(below, TOGETHER) for high in _some(above, TOGETHER))
    low, high = _least(histogram, make, chain(alike, unlike))
    low, high = _least(histogram, make, [(low, high), *((-far, high) for far in _some(below, ALONE))])
    return _least(histogram, make, [(low, high), *((low, far) for far in _some(above, ALONE))])


def _thresholds(histogram: StreamingHistogram, side: float) -> F64:
    """Distances from zero at which the values of one sign can be clipped, the farthest first; 0 where there are none."""
    extreme = max(side * (histogram.maximum if side > 0 else histogram.minimum), 0.0)
    distances = side * histogram.centers()[0]
    found: F64 = np.sort(np.append(distances[(distances > 0) & (distances < extreme)], extreme))[::-1]
    return found


def _some(thresholds: F64, count: int) -> F64:
    """At most `count` of the thresholds, evenly spread, the first always among them."""
    places = np.linspace(0, len(thresholds) - 1, min(count, len(thresholds)))
    chosen: F64 = thresholds[places.astype(np.int64)]
    return chosen


def _least(
    histogram: StreamingHistogram,
    make: Callable[[float, float], QuantParams],
    ranges: Iterable[tuple[float, float]],
) -> tuple[float, float]:
    """The range of least divergence, the first of equals; the first of all counts whatever its step."""
    best: tuple[float, float] | None = None
    least = math.inf
    for low, high in ranges:
        params = make(low, high)
        if best is not None and float(params.scale) < histogram.width:
            continue
        found = divergence(histogram, params)
        if best is None or found < least - 1e-12:
            best, least = (low, high), found
    assert best is not None
    return best
