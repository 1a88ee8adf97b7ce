"""Per-row weight scales: a first guess weighted by how much each input matters, and the exact refit for given codes.

First guess: over a grid of shrink factors, the scale with the least sum_j A_jj (w_j - q_j)^2. Refit: for codes c and
target t, the error (t - s c) A (t - s c)^T is least at s = (c A t) / (c A c).

Where scales must be powers of two, the first guess is over powers, and the refit goes to the power nearest to its optimum,
which is the best one: the error is a parabola in s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.quantization.weights import SMALLEST_SCALE
from hwc_onnx.recovery.statistics import F64


def code_range(bits: int, portable: bool = False) -> tuple[int, int]:
    """Symmetric integer range of a weight width: [-(2^(b-1) - 1), 2^(b-1) - 1]; 8 bits become 7 when `portable`.

    Products of 8-bit weights and unsigned 8-bit activations saturate in the 16-bit adders of x86 processors without
    VNNI; +-63 never does.
    """
    high = (1 << (bits - 1)) - 1
    if portable:
        high = min(high, 63)
    return -high, high


def ranges_of(bits: int, portable: bool = False) -> list[tuple[int, int]]:
    """Code ranges worth trying at a width, the symmetric one first.

    Up to 4 bits the one code that a symmetric range leaves out counts: at 2 bits the range may also be -2..1 or, as a
    channel's sign is free, its mirror image; at 3 and 4 bits it may take the lowest code in.
    """
    low, high = code_range(bits, portable)
    if bits == 2:
        return [(low, high), (-2, 1), (-1, 2)]
    return [(low, high), (low - 1, high)] if bits <= 4 else [(low, high)]


OCTAVES = 3
"""Powers of two tried below the one that covers the largest weight."""


NEAR = 1 << 18
"""Weights that are tried at once, so that they stay near the processor."""
SMALLEST = {1: 0.2, 2: 0.2, 3: 0.35, 7: 0.45, 15: 0.6}
"""The smallest shrink factor tried, by the highest code; 0.75 where there are more codes."""


def search_scale(
    weight: F64, diagonal: F64, low: float | F64, high: float | F64, steps: int = 24, power_of_two: bool = False
) -> F64:
    """Scale per row [groups, rows] of `weight` [groups, rows, d], weighted by `diagonal` [groups, d].

    `low` and `high` are one number or per row [1 or groups, rows]. One step is the scale that covers the largest weight.
    Rows of zeros get scale 0; see `fill_dead`.
    """
    form = weight.shape[:2]
    low, high = (np.broadcast_to(np.asarray(bound, dtype=np.float64), form) for bound in (low, high))
    largest = np.maximum(weight.max(axis=2) / np.maximum(high, 1), weight.min(axis=2) / np.minimum(low, -1))
    if power_of_two:
        largest = np.where(largest > 0, np.exp2(np.ceil(np.log2(np.where(largest > 0, largest, 1.0)))), 0.0)
        shrinks = [np.full(form, 0.5**octave) for octave in range(1 if steps == 1 else 1 + OCTAVES)]
    else:
        smallest = np.full(form, 0.75)
        for code, factor in SMALLEST.items():
            smallest[high == code] = factor
        shrinks = list(np.linspace(1.0, smallest, steps))
    best: F64 = largest.copy()
    best_error = np.full(largest.shape, np.inf)
    # a first guess needs no more than float32
    rows, weights = weight.astype(np.float32), np.sqrt(diagonal).astype(np.float32)[:, None]
    least, most = (bound.astype(np.float32)[:, :, None] for bound in (low, high))
    at_once = max(1, NEAR // max(weight.shape[0] * weight.shape[2], 1))
    for first in range(0, weight.shape[1], at_once):
        at = np.s_[:, first : first + at_once]
        here, lows, highs = rows[at], least[at], most[at]
        codes = np.empty_like(here)
        for shrink in shrinks:
            scale = largest[at] * shrink[at]
            divisor = np.where(scale >= SMALLEST_SCALE, scale, 1.0).astype(np.float32)[:, :, None]
            np.divide(here, divisor, out=codes)
            np.rint(codes, out=codes)
            np.minimum(np.maximum(codes, lows, out=codes), highs, out=codes)
            codes *= divisor
            codes -= here
            codes *= weights
            error = np.einsum("grd,grd->gr", codes, codes)
            better = error < best_error[at]
            best[at] = np.where(better, scale, best[at])
            best_error[at] = np.where(better, error, best_error[at])
    return best


def refit_scale(codes: F64, scale: F64, target: F64, matrix: F64) -> F64:
    """Best positive scale per row for fixed `codes` [groups, rows, d]; rows where none exists keep `scale`."""
    return best_scale(codes @ matrix, codes, target, scale)


def best_scale(products: F64, codes: F64, target: F64, scale: F64) -> F64:
    """As `refit_scale`, with `products` = codes A at hand; a `target` of fewer rows repeats."""
    power, match = parabola(products, codes, target)
    usable = (power > 0) & (match > 0)
    refitted: F64 = np.where(usable, match / np.where(power > 0, power, 1.0), scale)
    return refitted


def parabola(products: F64, codes: F64, target: F64) -> tuple[F64, F64]:
    """c A c and c A t of each row [groups, rows]: at scale s the error is s^2 c A c - 2 s c A t + t A t."""
    groups, rows, width = codes.shape
    power: F64 = np.einsum("grd,grd->gr", products, codes)
    repeated = products.reshape(groups, -1, target.shape[1], width)
    match: F64 = np.einsum("gcrd,grd->gcr", repeated, target).reshape(groups, rows)
    return power, match


def storable(scale: F64, tied: bool, power_of_two: bool = False) -> F64:
    """Scales [groups, rows] as they can be stored: float32, one for all groups where they are `tied`, never zero nor
    one of which float32 keeps fewer bits.

    With `power_of_two`, the nearest power by difference, not by ratio.
    """
    if tied:
        scale = np.broadcast_to(scale.max(axis=0), scale.shape)
    filled = fill_dead(scale, scale < SMALLEST_SCALE)
    if power_of_two:
        mantissa, exponent = np.frexp(filled)
        filled = np.ldexp(1.0, exponent - (mantissa < 0.75))
    return filled.astype(np.float32).astype(np.float64)


def fill_dead(scale: F64, dead: NDArray[np.bool_] | None = None) -> F64:
    """Rows of zeros (scale 0, or marked `dead`) take the median of the others, never a tiny number.

    A runtime that turns the bias into integers of scale s_x * s_w would lose the bias of a channel whose weight scale
    is next to nothing.
    """
    gone = scale <= 0 if dead is None else (scale <= 0) | dead
    if not gone.any():
        return scale
    alive = scale[~gone]
    return np.where(gone, float(np.median(alive)) if alive.size else 1.0, scale)
