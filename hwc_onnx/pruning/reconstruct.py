"""Channels that their readers weigh least leave, and the readers are refitted by least squares to their old outputs.

Source: He, Zhang & Sun, Channel Pruning for Accelerating Very Deep Neural Networks (ICCV 2017), section 3.1, equation
4 for the refit.
Differs from the paper: channels are ranked by the sum of absolute weights that read them, not by LASSO.
"""

from __future__ import annotations

from hwc_onnx.pruning.base import CoarseAlgorithm
from hwc_onnx.pruning.l1 import score

ALGORITHM = CoarseAlgorithm("reconstruct", score, reads="consumers", refits=True)
