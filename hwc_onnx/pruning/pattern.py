"""N:M sparsity: of every M consecutive input channels at one kernel tap, N stay.

The score is the OBS one, so that the zeros fall where the rest of the row can make up for them.

Source: Mishra et al., Accelerating Sparse Deep Neural Networks (2021), section 3 (2:4 along the reduction dimension);
score from Frantar & Alistarh, SparseGPT (ICML 2023), section 3.4.
"""

from __future__ import annotations

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.obs import score

TWO_OF_FOUR = FineAlgorithm("nm24", score, scope="pattern", pattern=(2, 4))
FOUR_OF_EIGHT = FineAlgorithm("nm48", score, scope="pattern", pattern=(4, 8))
