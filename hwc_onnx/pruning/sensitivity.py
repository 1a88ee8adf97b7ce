"""Sensitivity pruning: weights below a multiple of their filter's standard deviation become zero.

The multiple is the one that yields the asked ratio over the layer.

Source: Han, Pool, Tran & Dally, Learning both Weights and Connections (NeurIPS 2015), section 3.1 (threshold = quality
parameter times standard deviation).
Differs from the paper: the standard deviation is each filter's, not the layer's. With one deviation per layer and no
retraining the zeros would be exactly those of level pruning.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, FineAlgorithm, WeightContext


def score(weight: F64, context: WeightContext) -> F64:
    """|w| in standard deviations of its filter."""
    deviation = weight.std(axis=1, keepdims=True)
    typical = deviation[deviation > 0].mean() if (deviation > 0).any() else 1.0
    return np.abs(weight) / np.where(deviation > 0, deviation, typical)


ALGORITHM = FineAlgorithm("sensitivity", score)
