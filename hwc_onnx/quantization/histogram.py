"""A histogram that grows with its data: bounded memory, one pass, mergeable without loss.

Bins are aligned at zero and their width is a power of two, so widening the range joins neighbours exactly and two
histograms of different ranges merge as if one had seen all values. Exact zeros are counted apart: after a Relu they
are a large share of the tensor, and the accelerator skips them.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import DataError
from hwc_onnx.quantization.quantizer import QuantParams

_FINEST_FLOAT32 = 1e-30
"""Bin width below which 1 / width is too large for float32."""
_SQUARE_FITS = 1e15
"""Values below this have squares whose sum float32 holds."""


class StreamingHistogram:
    """Counts of the values of one tensor.

    Attributes:
        bins: number of bins, fixed.
        width: bin width (a power of two; 0.0 until a non-zero value came).
        start: index of the first bin; bin i covers [(start + i) * width, (start + i + 1) * width).
        counts: [bins] int64, without exact zeros.
        zeros, total: number of exact zeros, and of all values.
        minimum, maximum: exact extremes (0.0 when empty).
        mean, variance: over all values.
    """

    def __init__(self, bins: int = 4096) -> None:
        self.bins = bins
        self.width = 0.0
        self.start = 0
        self.counts = np.zeros(bins, np.int64)
        self.zeros = 0
        self.total = 0
        self.minimum = 0.0
        self.maximum = 0.0
        self._sum = 0.0
        self._squares = 0.0

    @property
    def mean(self) -> float:
        """Mean of all values (0.0 when empty)."""
        return self._sum / self.total if self.total else 0.0

    @property
    def variance(self) -> float:
        """Population variance of all values."""
        return max(0.0, self._squares / self.total - self.mean**2) if self.total else 0.0

    def update(self, values: NDArray[np.generic]) -> None:
        """Count `values` of any shape.

        Raises:
            DataError: a value is NaN or infinite.
        """
        flat = np.ravel(values)
        if flat.dtype not in (np.float32, np.float64):
            flat = flat.astype(np.float64)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(
                "activations hold NaN or infinite values; check the model's weights and the calibration data"
            )
        self.minimum = min(low, self.minimum) if self.total else low
        self.maximum = max(high, self.maximum) if self.total else high
        self.total += flat.size
        self._sum += float(flat.sum(dtype=np.float64))
        wide = flat if max(-low, high) < _SQUARE_FITS else flat.astype(np.float64)
        self._squares += float(wide @ wide)
        zeros = flat.size - int(np.count_nonzero(flat))
        self.zeros += zeros
        if zeros == flat.size:
            return
        self._reserve(min(low, 0.0), max(high, 0.0))
        if self.width < _FINEST_FLOAT32:
            flat = flat.astype(np.float64)
        places = flat * flat.dtype.type(1.0 / self.width)
        np.floor(places, out=places)
        places -= flat.dtype.type(self.start)
        self.counts += np.bincount(places.astype(np.intp), minlength=self.bins)
        self.counts[-self.start] -= zeros

    def merge(self, other: StreamingHistogram) -> StreamingHistogram:
        """A new histogram of the values of both."""
        joined = copy.copy(self)
        joined.counts = self.counts.copy()
        if not other.total:
            return joined
        joined.minimum = min(self.minimum, other.minimum) if self.total else other.minimum
        joined.maximum = max(self.maximum, other.maximum) if self.total else other.maximum
        joined.total += other.total
        joined.zeros += other.zeros
        joined._sum += other._sum
        joined._squares += other._squares
        used = np.flatnonzero(other.counts)
        if used.size:
            low = (other.start + int(used[0])) * other.width
            high = (other.start + int(used[-1]) + 1) * other.width
            joined._reserve(min(low, 0.0), max(math.nextafter(high, 0.0), 0.0), other.width)
            index = (other.start + used) // round(joined.width / other.width) - joined.start
            np.add.at(joined.counts, index, other.counts[used])
        return joined

    def centers(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Middles and counts of the occupied bins (exact zeros are not among them)."""
        used = np.flatnonzero(self.counts)
        return np.asarray((self.start + used + 0.5) * self.width, np.float64), self.counts[used]

    def density(self, params: QuantParams) -> float:
        """P(q != zero point) once quantized with `params`, the values inside a bin taken as evenly spread.

        A value rounds to the zero point when |value| <= scale / 2, or when the range does not reach its side of zero.
        """
        if not self.total:
            return 1.0
        half = float(params.scale) / 2.0
        zero = int(params.zero_point)
        low = -half if zero > params.qmin else -math.inf
        high = half if zero < params.qmax else math.inf
        used = np.flatnonzero(self.counts)
        if not used.size:
            return 0.0
        left = (self.start + used) * self.width
        inside = np.clip(np.minimum(left + self.width, high) - np.maximum(left, low), 0.0, self.width) / self.width
        outside = float((self.counts[used] * (1.0 - inside)).sum())
        return outside / self.total

    def squared_error(self, params: QuantParams) -> float:
        """Mean squared error of quantizing the values (bin middles stand for them; exact zeros have no error)."""
        scale, zero = np.array([float(params.scale)]), np.array([int(params.zero_point)])
        return float(self.squared_errors(scale, params.qmin - zero, params.qmax - zero)[0])

    def squared_errors(
        self, scales: NDArray[np.float64], lows: NDArray[np.int64], highs: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The same for many quantizers at once: steps [n], lowest and highest integers [n], zero point taken off."""
        if not self.total:
            return np.zeros(len(scales))
        centers, counts = self.centers()
        errors = centers / scales[:, None]
        np.rint(errors, out=errors)
        np.clip(errors, lows[:, None], highs[:, None], out=errors)
        errors *= -scales[:, None]
        errors += centers
        np.square(errors, out=errors)
        found: NDArray[np.float64] = errors @ counts.astype(np.float64) / self.total
        return found

    def quantile(self, share: float) -> float:
        """The value below which `share` (0..1) of all values lie, interpolated inside a bin."""
        if not self.total or not self.width:
            return 0.0
        below = float(self.counts[: max(-self.start, 0)].sum())
        target = share * self.total
        if below <= target <= below + self.zeros:
            return 0.0
        target -= self.zeros if target > below else 0
        cumulative = np.cumsum(self.counts)
        index = min(int(np.searchsorted(cumulative, target)), self.bins - 1)
        inside = (target - float(cumulative[index] - self.counts[index])) / max(float(self.counts[index]), 1.0)
        value = (self.start + index + inside) * self.width
        return min(max(value, self.minimum), self.maximum)

    def _reserve(self, low: float, high: float, width: float = 0.0) -> None:
        """Make bins for [low, high] (which includes 0), no finer than `width`, joining neighbours as needed."""
        if self.width == 0.0:
            span = max(high - low, np.finfo(np.float64).tiny * self.bins)
            self.width = max(width, 2.0 ** math.ceil(math.log2(span / (self.bins - 2))))
            self.start = math.floor(low / self.width)
        while self.width < width or not self._shift_to(low, high):
            self._double()

    def _shift_to(self, low: float, high: float) -> bool:
        """Move the window over [low, high] and all counts; False when they do not fit at this width."""
        first, last = math.floor(low / self.width), math.floor(high / self.width)
        used = np.flatnonzero(self.counts)
        if used.size:
            first, last = min(first, self.start + int(used[0])), max(last, self.start + int(used[-1]))
        if last - first >= self.bins:
            return False
        if self.start <= first and last < self.start + self.bins:
            return True
        moved = np.zeros_like(self.counts)
        if used.size:
            moved[used + self.start - first] = self.counts[used]
        self.counts, self.start = moved, first
        return True

    def _double(self) -> None:
        """Double the bin width."""
        index = np.arange(self.start, self.start + self.bins) // 2
        start = int(index[0])
        joined = np.zeros_like(self.counts)
        np.add.at(joined, index - start, self.counts)
        self.width *= 2.0
        self.start, self.counts = start, joined
