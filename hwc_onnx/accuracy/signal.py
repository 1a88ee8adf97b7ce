"""Samples on which the original answers nothing: a detector on empty pictures gives zeros, and so does a compressed model that is dead.

Metrics that compare outputs with the original's, as angles or as signal to noise, tell nothing there, or call the dead model perfect. Such samples are left
out, and where hardly any other remain nothing is measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.outputs import F64, Outputs, float_outputs
from hwc_onnx.errors import DataError

FEWEST = 16
"""Samples with a signal, or half of all, below which such metrics are refused (assumed)."""
SILENT = 1e-6
"""A sample's power over the mean of all below which it has no signal: 60 dB."""


def with_signal(outputs: Outputs, metric: str, fewest: int = FEWEST) -> NDArray[np.int64]:
    """Positions of the samples where any of the original's outputs has a signal, in order.

    Args:
        outputs: the original's, [n, ...] each.
        metric: its name, for the error.
        fewest: how many there must be, where that is less than half of all.

    Raises:
        DataError: there are fewer.
    """
    # minus infinity is how classes are masked
    flat: list[F64] = [np.where(np.isfinite(values), values, 0.0) for values in float_outputs(outputs).values()]
    powers = [(values**2).sum(axis=1) for values in flat]
    audible = [power > SILENT * power.mean() for power in powers if len(power)]
    found = np.flatnonzero(np.any(audible, axis=0)) if audible else np.arange(0)
    total = len(flat[0]) if flat else 0
    if len(found) < max(min(fewest, total // 2), 1):
        raise DataError(
            f"the original's outputs are all zero on {total - len(found)} of {total} samples, so {metric} tells a good model from a dead one by the other "
            f"{len(found)} alone; give samples on which it answers something with --data (made-up ones seldom look like what it was trained on), or another --metric"
        )
    return found
