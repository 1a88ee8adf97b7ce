"""Channels with the smallest sum of absolute weights leave.

Source: Li, Kadav, Durdanovic, Samet & Graf, Pruning Filters for Efficient ConvNets (ICLR 2017), section 3.1.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, CoarseAlgorithm


def score(channels: F64, rng: np.random.Generator) -> F64:
    """Sum of absolute values per row."""
    scores: F64 = np.abs(channels).sum(axis=1)
    return scores


ALGORITHM = CoarseAlgorithm("l1", score)
