"""Optimal Brain Surgeon masks: zero the weights that the others can best make up for.

Source: Frantar & Alistarh, SparseGPT (ICML 2023), section 3.2: w_j^2 / [H^-1]_jj, chosen block by block while the rest
of the row is being repaired (hwc_onnx/recovery/obs.py). Without repair the same score ranks the whole layer at once.
"""

from __future__ import annotations

from hwc_onnx.pruning.base import F64, FineAlgorithm, WeightContext


def score(weight: F64, context: WeightContext) -> F64:
    """w_j^2 / [H^-1]_jj: the error left after the best repair."""
    scores: F64 = weight**2 / context.inverse_diagonal
    return scores


ALGORITHM = FineAlgorithm("obs", score, sequential=True)
