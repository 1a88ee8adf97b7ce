"""Level pruning: the smallest absolute weights of the layer become zero.

Source: Han, Pool, Tran & Dally, Learning both Weights and Connections (NeurIPS 2015), section 3.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, FineAlgorithm, WeightContext


def score(weight: F64, context: WeightContext) -> F64:
    """|w|."""
    return np.abs(weight)


ALGORITHM = FineAlgorithm("magnitude", score)
