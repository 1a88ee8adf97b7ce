"""Nearly the best integer codes of rows that are short, as those of depthwise layers are.

With A = R^T R (R upper triangular) the error of codes c at scale s is the sum over i of

    (R_ii (t_i - s c_i) + sum_{j > i} R_ij (t_j - s c_j))^2,

so codes can be chosen from the last column to the first, and what is chosen bounds the error from below. OBS rounding
takes the nearest code at each step; here the `beam` best beginnings are kept, each continued with its three nearest codes.
With a beam that never drops one this is exact search among those continuations.

Source: the problem is that of the closest point in a lattice; Agrell, Eriksson, Vardy & Zeger, IEEE Trans. Information
Theory 48(8), 2002, sections II and III. The beam is the M-algorithm of tree search.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.statistics import F64

SHORT = 16
"""Rows of at most so many columns are searched."""
BEAM = 32


def closest_codes(
    target: F64,
    matrix: F64,
    scale: F64,
    low: int | F64,
    high: int | F64,
    keep: NDArray[np.bool_] | None = None,
    beam: int = BEAM,
) -> F64:
    """Codes [groups, rows, d] of small error (t - s c) A (t - s c)^T.

    Args:
        target: rows [groups, rows, d].
        matrix: A [groups, d, d], positive definite.
        scale: per row [groups, rows], positive.
        low, high: bounds of the codes, one number or per row.
        keep: positions that need not be zero, None for all.
        beam: beginnings that are kept.
    """
    groups, rows, width = target.shape
    upper = np.linalg.cholesky(matrix).transpose(0, 2, 1)
    lows, highs = (np.broadcast_to(bound, (groups, rows))[:, :, None, None] for bound in (low, high))
    step = scale[:, :, None]
    errors = np.zeros((groups, rows, 1))
    rests = np.zeros((groups, rows, 1, width))
    codes = np.zeros((groups, rows, 1, width))
    for done, i in enumerate(range(width - 1, -1, -1)):
        pivot = upper[:, i, i][:, None, None]
        pulled = np.einsum("grbd,gd->grb", rests, upper[:, i]) / pivot
        wanted = (target[:, :, None, i] + pulled) / step
        nearest = np.clip(np.rint(wanted), lows[..., 0], highs[..., 0])
        side = np.where(wanted >= nearest, 1.0, -1.0)
        tried = np.clip(np.stack([nearest, nearest + side, nearest - side], axis=-1), lows, highs)
        if keep is not None:
            tried = tried * keep[:, :, i][:, :, None, None]
        costs = errors[..., None] + (pivot[..., None] * step[..., None] * (wanted[..., None] - tried)) ** 2
        costs[..., 1][tried[..., 1] == tried[..., 0]] = np.inf
        costs[..., 2][(tried[..., 2] == tried[..., 0]) | (tried[..., 2] == tried[..., 1])] = np.inf
        flat = costs.reshape(groups, rows, -1)
        best = np.argsort(flat, axis=2, kind="stable")[:, :, : min(beam, 3 ** (done + 1))]
        parent = best // 3
        errors = np.take_along_axis(flat, best, axis=2)
        codes = np.take_along_axis(codes, parent[..., None], axis=2)
        rests = np.take_along_axis(rests, parent[..., None], axis=2)
        chosen = np.take_along_axis(tried.reshape(groups, rows, -1), best, axis=2)
        codes[..., i] = chosen
        rests[..., i] = target[:, :, None, i] - chosen * step
    return codes[:, :, 0]

