"""Scales of weights, one per output channel: the least that cover a row, and scales fit to be written.

A weight w of channel k becomes the integer q = round(w / s_k), limited to the width's symmetric range
-(2^(b-1) - 1) .. 2^(b-1) - 1, so that zero stays zero and no code lacks its negative. `portable` limits 8-bit codes to
-63..63, because x86 processors without VNNI add two products in 16 bits and saturate (2 * 255 * 127 > 32,767).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 2.0**20
"""Below this a float32 scale loses bits (denormals are flushed to zero by several runtimes)."""

INT32_HEADROOM = float(2**30)
"""Runtimes store a bias as INT32 of scale (input scale * weight scale); half of the range is left for the sum."""

def symmetric_limit(bits: int, portable: bool = False) -> int:
    """Largest integer of the symmetric range: 2^(bits-1) - 1, or 63 for portable 8-bit weights."""
    limit = (1 << (bits - 1)) - 1
    return min(limit, 63) if portable else limit


def to_rows(weight: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """`weight` as [channels along `axis`, everything else], float64."""
    moved = np.moveaxis(np.asarray(weight, np.float64), axis, 0)
    return moved.reshape(moved.shape[0], -1)


def minmax_scales(rows: NDArray[np.float64], bits: int, portable: bool = False) -> NDArray[np.float64]:
    """Scales [K] that just cover the largest magnitude of each row of `rows` [K, d]; 0 for a row of zeros."""
    scales: NDArray[np.float64] = np.abs(rows).max(axis=1, initial=0.0) / symmetric_limit(bits, portable)
    return scales


def settle_scales(
    scales: NDArray[np.float64],
    dead: NDArray[np.bool_],
    bias: NDArray[np.float32] | None = None,
    input_scale: float | None = None,
) -> NDArray[np.float32]:
    """Scales [K] fit to be written: dead channels take the median of the live ones and never an epsilon.

    With `bias` [K] and `input_scale`, a dead channel also obeys scale >= |bias| / (input_scale * 2^30), so that its
    bias survives as INT32. Live channels keep their scale: where theirs is too small the writer separates the bias.
    """
    live = scales[~dead & (scales > 0)]
    filled = np.where(dead | (scales <= 0), float(np.median(live)) if live.size else 1.0, scales)
    if bias is not None and input_scale is not None:
        floor = np.abs(bias.astype(np.float64)) / (input_scale * INT32_HEADROOM)
        filled = np.where(dead, np.maximum(filled, floor), filled)
    return np.maximum(filled, SMALLEST_SCALE).astype(np.float32)
