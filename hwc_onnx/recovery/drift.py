"""One forward that corrects every bias at once, without counting a shift twice.

In a compressed network the mean output of layer l is off by delta_out, but part of that was passed on by its inputs,
whose means are off by delta_in and whose own layers are being corrected too. Only the local part,
delta_out - W_sum delta_in (W_sum is the weight summed over kernel taps), is the layer's own doing, and only that is
taken from its bias. Zero padding makes W_sum delta_in slightly too large at the borders.

Source: the bias correction of Nagel et al. (ICCV 2019), section 4.2, in its empirical form; the separation of local
and passed-on shift is this project's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.statistics import F64


def local_shift(rows: F64, layout: RowLayout, delta_in: F64, delta_out: F64) -> F64:
    """The part of a layer's mean output shift that its inputs do not explain, [outputs].

    Args:
        rows: the compressed rows [groups, rows, d] (dequantized).
        layout: the layer's layout.
        delta_in: compressed minus original mean of each input channel [groups * channels].
        delta_out: compressed minus original mean of each output channel [outputs].
    """
    summed = rows.reshape(layout.groups, layout.rows, -1, layout.taps).sum(axis=3)
    passed_on = np.einsum("grc,gc->gr", summed, delta_in.reshape(layout.groups, -1))
    local: F64 = delta_out - passed_on.reshape(-1)
    return local


def corrected(bias: NDArray[np.float32], shift: F64, limit: float | None = None) -> NDArray[np.float32]:
    """`bias` [outputs] without the local shift; `limit` bounds each change (in units of the output)."""
    bounded = shift if limit is None else np.clip(shift, -limit, limit)
    return (bias.astype(np.float64) - bounded).astype(np.float32)
