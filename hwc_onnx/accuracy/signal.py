"""Samples on which the original answers nothing: a detector on empty pictures gives zeros, and so does a compressed model that is dead.

Metrics that compare outputs with the original's, as angles or as signal to noise, tell nothing there, or call the dead model perfect. Such samples are left
out, and where hardly any other remain nothing is measured. So it is with one of several outputs: where it has no signal the others count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.outputs import Outputs, float_outputs
from hwc_onnx.errors import DataError

FEWEST = 16
"""Samples with a signal, or half of all, below which such metrics are refused (assumed)."""
SILENT = 1e-6
"""An output's power in a sample over its usual power, below which it has no signal there: 60 dB."""
LOUD = 0.95
"""The quantile of the powers other than zero that is called usual: few answers are enough, a single outlier is not."""


def audible(outputs: Outputs) -> dict[str, NDArray[np.bool_]]:
    """For each float output of the original, in which samples it has a signal, [n]."""
    found = {}
    for name, values in float_outputs(outputs).items():
        power = (values**2).sum(axis=1)
        found[name] = power > SILENT * np.quantile(power[power > 0.0], LOUD) if power.any() else np.zeros(len(power), bool)
    return found


def with_signal(heard: Mapping[str, NDArray[np.bool_]], metric: str, fewest: int = FEWEST) -> NDArray[np.int64]:
    """Positions of the samples where any of the original's outputs has a signal, in order.

    Args:
        heard: what `audible` found, [n] each.
        metric: its name, for the error.
        fewest: how many there must be, where that is less than half of all.

    Raises:
        DataError: there are fewer.
    """
    found = np.flatnonzero(np.any(list(heard.values()), axis=0))
    total = len(next(iter(heard.values())))
    if len(found) < max(min(fewest, total // 2), 1):
        raise DataError(
            f"the original's outputs are all zero on {total - len(found)} of {total} samples, so {metric} tells a good model from a dead one by the other "
            f"{len(found)} alone; give samples on which it answers something with --data (made-up ones seldom look like what it was trained on), or another --metric"
        )
    return found


def without_hiss(outputs: Outputs, heard: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.generic]]:
    """The outputs with zeros where they have no signal, which metrics pass over."""
    made = {}
    for name, values in outputs.items():
        silent = ~heard[name] if name in heard else np.zeros(len(values), bool)
        made[name] = np.where(silent.reshape(-1, *[1] * (values.ndim - 1)), np.zeros((), values.dtype), values) if silent.any() else values
    return made
