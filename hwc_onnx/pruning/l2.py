"""Channels with the smallest Euclidean norm leave.

Source: He, Kang, Dong, Fu & Yang, Soft Filter Pruning (IJCAI 2018), section 3.2 (p = 2).
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, CoarseAlgorithm


def score(channels: F64, rng: np.random.Generator) -> F64:
    """Root of the sum of squares per row."""
    scores: F64 = np.sqrt((channels**2).sum(axis=1))
    return scores


ALGORITHM = CoarseAlgorithm("l2", score)
