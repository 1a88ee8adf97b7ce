"""Weights as integers: symmetric, one scale per output channel, ranges chosen on the weights themselves.

A weight w of channel k becomes the integer q = round(w / s_k), limited to the width's symmetric range
-(2^(b-1) - 1) .. 2^(b-1) - 1, so that zero stays zero and no code lacks its negative. At 2 bits this range is ternary;
the full range -2..1 (or its mirror image, chosen per channel) is the alternative. `portable` limits 8-bit codes to
-63..63, because x86 processors without VNNI add two products in 16 bits and saturate (2 * 255 * 127 > 32,767).

Source of the scale search: weighted squared error over a grid of shrunken ranges, as in Choukroun et al., "Low-bit
Quantization of Neural Networks for Efficient Inference", 2019, section 3.2, here weighted by the diagonal of the
layer's Hessian (Hassibi & Stork, 1993: the second-order term of the output error).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams

SMALLEST_SCALE = float(np.finfo(np.float32).tiny) * 2.0**20
"""Below this a float32 scale loses bits (denormals are flushed to zero by several runtimes)."""

INT32_HEADROOM = float(2**30)
"""Runtimes store a bias as INT32 of scale (input scale * weight scale); half of the range is left for the sum."""

_GRID = np.linspace(1.0, 0.3, 71)
_GRID_COARSE = np.linspace(1.0, 0.2, 81)


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


def search_scales(
    rows: NDArray[np.float64],
    bits: int,
    importance: NDArray[np.float64] | None = None,
    portable: bool = False,
) -> NDArray[np.float64]:
    """Scales [K] that minimise sum_j importance_j (w_j - s q_j)^2 over shrunken ranges, then a least-squares refit.

    Args:
        rows: weights [K, d], those that will be rounded (after masking and compensation).
        bits: width, 2..8.
        importance: diagonal of the Hessian, [d] or [K, d]; None weighs all columns alike.
        portable: limit 8-bit codes to 63.
    """
    limit = symmetric_limit(bits, portable)
    weight = np.ones(rows.shape[1]) if importance is None else np.asarray(importance, np.float64)
    full = np.abs(rows).max(axis=1, initial=0.0) / limit
    best, best_error = full.copy(), np.full(len(rows), np.inf)
    for shrink in _GRID if bits > 3 else _GRID_COARSE:
        scale = full * shrink
        error = _row_error(rows, _round_rows(rows, scale, limit), scale, weight)
        better = error < best_error
        best[better], best_error[better] = scale[better], error[better]
    codes = _round_rows(rows, best, limit)
    refit = refit_scales(rows, codes, best, weight)
    keeps = _row_error(rows, _round_rows(rows, refit, limit), refit, weight) <= best_error
    chosen: NDArray[np.float64] = np.where(keeps, refit, best)
    return chosen


def refit_scales(
    rows: NDArray[np.float64],
    codes: NDArray[np.float64],
    scales: NDArray[np.float64],
    importance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Least-squares scale of each row for given codes: (c H w) / (c H c) with diagonal H; `scales` where undefined."""
    upper = (codes * rows * importance).sum(axis=1)
    lower = (codes * codes * importance).sum(axis=1)
    fitted = np.divide(upper, lower, out=np.zeros_like(upper), where=lower > 0)
    result: NDArray[np.float64] = np.where(fitted > 0, fitted, scales)
    return result


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


def quantize_weight(
    weight: NDArray[np.floating],
    axis: int,
    bits: int,
    *,
    method: Literal["minmax", "mse"] = "mse",
    importance: NDArray[np.float64] | None = None,
    bias: NDArray[np.float32] | None = None,
    input_scale: float | None = None,
    portable: bool = False,
    two_bits: Literal["ternary", "full", "best"] = "ternary",
) -> QuantizedWeight:
    """Round `weight` (ONNX layout, output channels along `axis`) to `bits` per channel.

    Args:
        weight: any rank, float.
        axis: axis of the output channels.
        bits: 2..8.
        method: "minmax" covers the largest magnitude, "mse" searches the scale.
        importance: Hessian diagonal over the row's elements, [d] or [K, d] in the order of `to_rows`.
        bias: passed through, and used for the scale of dead channels.
        input_scale: scale of the layer's input quantizer, if it has one.
        portable: limit 8-bit codes to 63.
        two_bits: range of 2-bit codes: ternary, the full range with one sign per channel, or the better per channel.
    """
    rows = to_rows(weight, axis)
    limit = symmetric_limit(bits, portable)
    scales = (
        minmax_scales(rows, bits, portable) if method == "minmax" else search_scales(rows, bits, importance, portable)
    )
    codes = _round_rows(rows, scales, limit)
    if bits == 2 and two_bits != "ternary":
        codes, scales = _full_two_bits(rows, scales, codes, importance, always=two_bits == "full")
    settled = settle_scales(scales, ~np.any(codes != 0, axis=1), bias, input_scale)
    shape = np.moveaxis(np.asarray(weight), axis, 0).shape
    integers = np.ascontiguousarray(np.moveaxis(codes.astype(np.int8).reshape(shape), 0, axis))
    params = QuantParams(settled, np.zeros(settled.shape, np.int32), bits, True, axis)
    return QuantizedWeight(integers, params, bias, float(np.mean(codes != 0)) if codes.size else 0.0)


def _full_two_bits(
    rows: NDArray[np.float64],
    scales: NDArray[np.float64],
    codes: NDArray[np.float64],
    importance: NDArray[np.float64] | None,
    always: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Codes and scales on -2..1 or -1..2, whichever is better per row (the ternary ones may stay unless `always`)."""
    weight = np.ones(rows.shape[1]) if importance is None else np.asarray(importance, np.float64)
    peak = np.abs(rows).max(axis=1, initial=0.0)
    best_error = np.full(len(rows), np.inf) if always else _row_error(rows, codes, scales, weight)
    codes, scales = codes.copy(), scales.copy()
    for low, high in ((-2, 1), (-1, 2)):
        for shrink in _GRID_COARSE:
            scale = peak * shrink / 1.5
            trial = _round_between(rows, scale, low, high)
            scale = refit_scales(rows, trial, scale, weight)
            error = _row_error(rows, trial, scale, weight)
            better = error < best_error
            codes[better], scales[better], best_error[better] = trial[better], scale[better], error[better]
    return codes, scales


def _round_rows(rows: NDArray[np.float64], scales: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    return _round_between(rows, scales, -limit, limit)


def _round_between(rows: NDArray[np.float64], scales: NDArray[np.float64], low: int, high: int) -> NDArray[np.float64]:
    safe = np.where(scales > 0, scales, 1.0)[:, None]
    return np.clip(np.rint(rows / safe), low, high)


def _row_error(
    rows: NDArray[np.float64],
    codes: NDArray[np.float64],
    scales: NDArray[np.float64],
    importance: NDArray[np.float64],
) -> NDArray[np.float64]:
    difference = rows - codes * scales[:, None]
    error: NDArray[np.float64] = (difference * difference * importance).sum(axis=1)
    return error
