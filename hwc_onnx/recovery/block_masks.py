"""Blocks of weights that become zero as wholes: the choice of blocks, made while the rest of the row is being repaired.

In the sweep of obs.py, with A^-1 = U^T U and the columns of a block B side by side, zeroing the block costs
|w_B U_BB^-1|^2 = w_B ([A_F^-1]_BB)^-1 w_B^T, where F are the columns from the block on: what is left after the best answer
of the columns that follow. For blocks of one this is the (w_j / U_jj)^2 of single weights.

Source: Kurtic et al., The Optimal BERT Surgeon (EMNLP 2022), section 3.2, for the cost of a block; Frantar & Alistarh,
SparseGPT (ICML 2023), Algorithm 1, for the sweep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.obs import SELECTION_BLOCK, Replace, blocks, columns_of, gone, sweep
from hwc_onnx.recovery.quadratic import upper_factor_of_inverse
from hwc_onnx.recovery.statistics import F64


def side_by_side(matrix: F64, factor: F64, runs: NDArray[np.int64]) -> F64:
    """U [groups, d, d] with the columns of each block next to one another; `factor` is that of the natural order."""
    order = runs[runs >= 0]
    if np.array_equal(order, np.arange(len(order))):
        return factor
    return upper_factor_of_inverse(matrix[:, order[:, None], order[None, :]])


def select_blocks(weight: F64, factor: F64, runs: NDArray[np.int64], ratio: float) -> tuple[NDArray[np.bool_], F64]:
    """The kept positions and the compensated rows, both [groups, rows, d]; exactly round(ratio * all blocks) are zero (one stays).

    Args:
        weight: rows [groups, rows, d].
        factor: U [groups, d, d], as `side_by_side` gives it.
        runs: columns of each block [n, size], -1 where the last one is shorter.
        ratio: share of blocks that go.
    """
    from scipy.linalg import solve_triangular

    order = runs[runs >= 0]
    edges = np.concatenate([[0], np.cumsum((runs >= 0).sum(axis=1))])
    spans = blocks(len(runs), max(1, SELECTION_BLOCK // runs.shape[1]))
    per_block = weight.shape[0] * weight.shape[1]
    total = per_block * len(runs)
    keep = np.ones(weight.shape, dtype=bool)
    first_block = {int(edges[first]): (first, last) for first, last in spans}

    def start(first: int, last: int, local: F64) -> Replace:
        begin, end = first_block[first]
        cost = np.empty((*weight.shape[:2], end - begin))
        for number in range(begin, end):
            here = slice(edges[number], edges[number + 1])
            inside = slice(edges[number] - first, edges[number + 1] - first)
            for group, (square, columns) in enumerate(zip(factor[:, here, here], local[:, inside], strict=True)):
                # e U_BB = w_B, for all rows at once
                error = solve_triangular(square.T, columns, lower=True, check_finite=False)
                cost[group, :, number - begin] = (error**2).sum(axis=0)
        count = gone(ratio, per_block * end, total) - gone(ratio, per_block * begin, total)
        flat = np.ones(cost.size, dtype=bool)
        flat[np.argsort(cost.ravel(), kind="stable")[:count]] = False
        sizes = np.diff(edges[begin : end + 1])
        keep[:, :, first:last] = np.repeat(flat.reshape(cost.shape), sizes, axis=2)
        free = columns_of(keep, first, last)
        return lambda j, column: column * free[:, j]

    values = sweep(weight[:, :, order], factor, [(int(edges[a]), int(edges[b])) for a, b in spans], start)
    back = np.argsort(order)
    return keep[:, :, back], values[:, :, back]
