"""Channels nearest to all others leave: the others can stand in for them.

Source: He, Liu, Wang, Hu & Yang, Filter Pruning via Geometric Median (CVPR 2019), section 3.3, equation 8.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, CoarseAlgorithm


def score(channels: F64, rng: np.random.Generator) -> F64:
    """Sum of Euclidean distances to all other rows."""
    power = (channels**2).sum(axis=1)
    squared = power[:, None] + power[None, :] - 2.0 * channels @ channels.T
    np.fill_diagonal(squared, 0.0)
    scores: F64 = np.sqrt(np.maximum(squared, 0.0)).sum(axis=1)
    return scores


ALGORITHM = CoarseAlgorithm("fpgm", score)
