"""Block sparsity: four consecutive input channels at one kernel tap become zero together, or stay together.

A unit that fetches or multiplies four weights at a time leaves such a block out as a whole, with one index for the four.
The zeros fall where the rest of the row can best make up for a whole block (hwc_onnx/recovery/block_masks.py). Where
nothing is repaired, blocks are ranked by the sum of the single scores.

Source: the group form of Optimal Brain Surgeon, Kurtic et al., The Optimal BERT Surgeon (EMNLP 2022), section 3.2: blocks of
four weights in a row of w_B ([H^-1]_BB)^-1 w_B^T.
"""

from __future__ import annotations

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.pruning.obs import score

BLOCKS_OF_FOUR = FineAlgorithm("block4", score, scope="block", block=4, sequential=True)
