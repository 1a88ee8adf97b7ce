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
BEAM = 16
AT_ONCE = 1 << 16
"""Numbers for all beginnings of the rows that are searched together."""


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
    lows, highs, scales = (np.broadcast_to(each, (groups, rows)).reshape(-1) for each in (low, high, scale))
    aims, free = target.reshape(-1, width), None if keep is None else keep.reshape(-1, width)
    result = np.empty(aims.shape)
    # so many rows at a time that all their beginnings stay near the processor
    at_once = max(1, AT_ONCE // (beam * width))
    for first in range(0, len(aims), at_once):
        at = slice(first, first + at_once)
        owner = np.arange(first, min(first + at_once, len(aims))) // rows
        mask = None if free is None else free[at]
        result[at] = _search(aims[at], upper[owner], scales[at], lows[at], highs[at], mask, beam)
    return result.reshape(target.shape)


def _search(
    target: F64, upper: F64, scale: F64, low: F64, high: F64, keep: NDArray[np.bool_] | None, beam: int
) -> F64:
    """The same for rows [rows, d], each with its matrix R [rows, d, d]."""
    rows, width = target.shape
    step, lows, highs = scale[:, None], low[:, None, None], high[:, None, None]
    errors = np.zeros((rows, 1))
    pulls = np.zeros((rows, 1, width))  # for each beginning what its codes so far add at the columns to come
    trail: list[tuple[NDArray[np.int64], F64]] = []
    for i in range(width - 1, -1, -1):
        pivot = upper[:, i, i, None]
        wanted = (target[:, i, None] + pulls[:, :, i] / pivot) / step
        nearest = np.minimum(np.maximum(np.rint(wanted), lows[:, 0]), highs[:, 0])
        side = np.where(wanted >= nearest, 1.0, -1.0)
        tried = np.stack([nearest, nearest + side, nearest - side], axis=-1)
        np.minimum(np.maximum(tried, lows, out=tried), highs, out=tried)
        if keep is not None:
            tried *= keep[:, i, None, None]
        costs = errors[..., None] + ((pivot * step)[..., None] * (wanted[..., None] - tried)) ** 2
        costs[..., 1][tried[..., 1] == tried[..., 0]] = np.inf
        costs[..., 2][(tried[..., 2] == tried[..., 0]) | (tried[..., 2] == tried[..., 1])] = np.inf
        flat = costs.reshape(rows, -1)
        best = np.argsort(flat, axis=1, kind="stable")[:, : min(beam, flat.shape[1])]
        place = best + flat.shape[1] * np.arange(rows)[:, None]
        errors, chosen = flat.take(place), tried.reshape(-1).take(place)
        trail.append((best // 3, chosen))
        if i:
            pulls = pulls.reshape(-1, pulls.shape[2])[:, :i].take(place // 3, axis=0)
            rest = target[:, i, None] - chosen * step
            pulls += rest[:, :, None] * upper[:, None, :i, i]
    return _walked_back(trail, rows)


def _walked_back(trail: list[tuple[NDArray[np.int64], F64]], rows: int) -> F64:
    """The codes [rows, d] of the best end, column by column from the first to the last chosen one."""
    row, at = np.arange(rows), np.zeros(rows, dtype=np.int64)
    codes = []
    for parent, chosen in reversed(trail):
        codes.append(chosen[row, at])
        at = parent[row, at]
    return np.stack(codes, axis=1)
