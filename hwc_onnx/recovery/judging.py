"""Squared output errors of many rows by one second moment, as fast as they are needed: once for every variant.

An error is (w - q) M (w - q)^T. Where M holds moments of inputs that do not all say the same, it hardly cancels, so single
precision gives about six right digits. Moments of fewer samples than inputs have M = L L^T with a factor as narrow as the
samples are few, and the error is the squared length of (w - q) L.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

WIDE = 128
"""Inputs from which on single precision is used."""
FEW = 0.6
"""Samples per input below which the factor is used."""
WIDEST = 4096
"""Inputs from which on finding the factor would take longer than it ever saves."""
LEAST_MEAN = 1e-6
"""Mean of the diagonal over the largest entry of a moment, at least."""
NOTHING = 1e-10
"""Share of the largest eigenvalue below which one is taken for zero."""


class Judge:
    """Errors by `moment` [groups, d, d], in double precision; where the `samples` it was summed over are given, wide ones in
    single precision, by a factor if it takes at most `factor_bytes`.
    """

    def __init__(self, moment: F64, samples: int | None = None, factor_bytes: int = 1 << 62) -> None:
        width = moment.shape[-1]
        self._size = 1.0
        self._moment: F64 | F32 = moment
        self._factor: F32 | None = None
        if samples is None or width < WIDE:
            return
        # in units of the mean diagonal, so that no input leaves the range of single precision
        mean = float(np.einsum("gdd->", moment)) / (len(moment) * width)
        self._size = max(mean, LEAST_MEAN * float(np.abs(moment).max(initial=0.0)), 1e-300)  # of inputs that never vary only rounding is left
        if width <= WIDEST and samples < FEW * width and 4 * len(moment) * width * samples <= factor_bytes:
            self._factor = _factor(moment / self._size)
        self._moment = (moment / self._size).astype(np.float32) if self._factor is None else np.zeros(0, np.float32)

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._moment.nbytes + (0 if self._factor is None else self._factor.nbytes)

    def error(self, difference: F64) -> F64:
        """difference M difference^T for each row of [groups, rows, d]: [groups, rows], not below zero."""
        if self._moment.dtype == np.float64:
            plain: F64 = np.maximum(np.einsum("grd,grd->gr", difference @ self._moment, difference), 0.0)
            return plain
        largest = max(float(difference.max(initial=0.0)), -float(difference.min(initial=0.0)), 1e-300)
        rounded = np.multiply(difference, 1.0 / largest).astype(np.float32)
        if self._factor is None:
            error = np.einsum("grd,grd->gr", rounded @ self._moment, rounded)
        else:
            product = rounded @ self._factor
            error = np.einsum("grd,grd->gr", product, product)
        result: F64 = np.maximum(error.astype(np.float64), 0.0) * (self._size * largest**2)
        return result


def _factor(moment: F64) -> F32:
    """L [groups, d, r] with L L^T = moment, r the largest rank in the stack."""
    values, vectors = np.linalg.eigh(moment)
    kept = int((values > NOTHING * np.maximum(values[:, -1:], 1e-300)).sum(axis=1).max())
    kept = max(kept, 1)
    narrow: F32 = (vectors[:, :, -kept:] * np.sqrt(np.maximum(values[:, None, -kept:], 0.0))).astype(np.float32)
    return narrow
