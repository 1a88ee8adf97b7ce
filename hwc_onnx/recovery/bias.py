"""Bias correction: the bias takes over the mean of what a changed weight no longer produces.

b' = b + W m - W' m_S, with m the mean input patch and S the kept columns.

Source: Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction (ICCV 2019), section 4.2,
with measured instead of derived means.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.statistics import F64


def corrected_bias(
    bias: F64 | None, weight: F64, values: F64, mean: F64, keep: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """The corrected bias [groups * rows], float32.

    Args:
        bias: original bias [groups * rows], None for zero.
        weight: original rows [groups, rows, d].
        values: new rows [groups, rows, kept].
        mean: mean patch [groups, d].
        keep: kept columns, None for all.
    """
    kept_mean = mean if keep is None else mean[:, keep]
    shift = np.einsum("grd,gd->gr", weight, mean) - np.einsum("grd,gd->gr", values, kept_mean)
    base = np.zeros(shift.size) if bias is None else np.asarray(bias, dtype=np.float64)
    corrected: NDArray[np.float32] = (base + shift.reshape(-1)).astype(np.float32)
    return corrected
