"""Channels drawn at random leave, and what is left is scaled up by the share that was kept, as in dropout.

The draw depends on the channel group and ratio only, so the same setting is always the same network.

Source: Srivastava et al., Dropout (JMLR 2014), section 10 (scaling by the keep probability).
Differs from independent draws: the number of channels is exact.
"""

from __future__ import annotations

import numpy as np

from hwc_onnx.pruning.base import F64, CoarseAlgorithm


def score(channels: F64, rng: np.random.Generator) -> F64:
    """Uniform random numbers."""
    return rng.random(len(channels))


ALGORITHM = CoarseAlgorithm("bernoulli", score, rescale=True)
