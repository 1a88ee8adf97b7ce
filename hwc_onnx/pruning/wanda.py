"""Wanda: weights with the smallest |w| times root mean square of their input become zero, within each filter.

Source: Sun, Liu, Bair & Kolter, A Simple and Effective Pruning Approach for Large Language Models (ICLR 2024),
section 3, equation 1.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, FineAlgorithm, WeightContext


def score(weight: F64, context: WeightContext) -> F64:
    """|w_j| * sqrt(E[x_j^2])."""
    scores: F64 = np.abs(weight) * np.sqrt(context.input_power)
    return scores


ALGORITHM = FineAlgorithm("wanda", score, scope="row")
