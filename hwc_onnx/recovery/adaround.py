"""AdaRound: up or down for all weights of a row at once, by way of real numbers between the two codes.

Coordinate descent stops where no single code can move; a better rounding often needs several that move together. Here
each weight is s (f + h(v)) with f the lower of two neighbouring codes and h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1). All v
and the logarithm of each row's scale s descend together (Adam) on

    (t - q) A (t - q)^T / e  +  lambda mean(1 - |2 h - 1|^beta),

with e the error of the codes that one starts from (rows without any stay). The second term is added after a fifth of the steps; beta falls from
20 to 2, so that in the end every h is next to 0 or 1. The problem is the quadratic one that all repairs of a layer solve,
known from moments: no samples are drawn, and the same problem gives the same codes.

Source: Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization (ICML 2020), equations 21 to 24, without
the activation function (`benchmarks/polish.py`); Kingma & Ba, Adam (ICLR 2015). The learned scale and the start between the
codes and the target are ours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.quadratic import Quadratic
from hwc_onnx.recovery.rounding import Variant, polish
from hwc_onnx.recovery.scales import ranges_of, refit_scale
from hwc_onnx.recovery.statistics import F64

ITERATIONS = 500
STEP = 0.02
"""Of v; the logarithm of the scale takes a tenth of it."""
WEIGHT = 40.0
"""lambda; with less a good part of the weights is still undecided at the end."""
WARM_UP = 0.2
BETA = (20.0, 2.0)
ROUNDS = 2
"""Descents over single codes after the rounding."""
F32 = NDArray[np.float32]


def polished_rows(
    problem: Quadratic,
    start: Variant,
    low: F64,
    high: F64,
    keep: NDArray[np.bool_] | None,
    settle: Callable[[F64], F64],
    free_scale: bool = True,
    iterations: int = ITERATIONS,
) -> list[Variant]:
    """Two variants of the rows of `start`: rounded by `up_or_down`, and descended from there; either may be worse.

    `settle` makes scales [groups, rows] storable; the other arguments are those of `up_or_down`.
    """
    codes, scale = up_or_down(problem, start, low, high, keep, free_scale, iterations)
    scale = settle(refit_scale(codes, scale, problem.target, problem.matrix))
    rounded = Variant(codes.astype(np.int8), scale)
    descended = rounded
    for _ in range(ROUNDS):
        descended = polish(problem, descended, keep, low, high, settle)
    return [rounded, descended]


def up_or_down(
    problem: Quadratic,
    start: Variant,
    low: F64,
    high: F64,
    keep: NDArray[np.bool_] | None = None,
    free_scale: bool = True,
    iterations: int = ITERATIONS,
) -> tuple[F64, F64]:
    """Codes [groups, rows, d] next to those of `start`, and scales [groups, rows].

    Args:
        problem: targets and matrix of the layer.
        start: integer codes with their scales.
        low: least code of each row [groups, rows].
        high: largest code of each row [groups, rows].
        keep: mask [groups, rows, d]; what it lacks stays zero (None: dense).
        free_scale: whether scales may move.
        iterations: steps of the descent.
    """
    assert start.scale is not None
    codes, target, matrix = start.codes.astype(np.float64), problem.target, problem.matrix.astype(np.float32)
    wanted = target / start.scale[:, :, None]
    floor = np.clip(np.where(wanted >= codes, codes, codes - 1), low[:, :, None], high[:, :, None] - 1)
    share = (np.clip(wanted - floor, 0.0, 1.0) + (codes - floor)) / 2
    error = problem.error(start.values())
    wrong = error > 1e-9 * problem.error(np.zeros_like(target))
    per_error = np.where(wrong, 2.0 / np.where(wrong, error, 1.0), 0.0)[:, :, None].astype(np.float32)
    present = np.ones(1, dtype=np.float32) if keep is None else keep.astype(np.float32)
    lower, aim, first_scale = (a.astype(np.float32) for a in (floor, target, start.scale[:, :, None]))
    v = _inverse_of_share(np.clip(share, 0.03, 0.97)).astype(np.float32)
    log_scale = np.zeros_like(first_scale)
    moves = _Adam(v, STEP), _Adam(log_scale, STEP / 10)
    for number in range(iterations):
        h, slope = _share(v)
        scale: F32 = first_scale * np.exp(log_scale)
        values = (lower + h) * present * scale
        push = ((values - aim) @ matrix) * per_error
        down = push * scale * present + _decide(h, number / iterations)
        v = moves[0](v, np.multiply(down, slope, dtype=np.float32))
        if free_scale:
            log_scale = moves[1](log_scale, (push * values).sum(axis=2, keepdims=True))
    found: F64 = floor + (_share(v)[0] >= 0.5)
    learned: F64 = start.scale * np.exp(log_scale[:, :, 0].astype(np.float64))
    return (found if keep is None else found * keep), learned


def code_bounds(codes: NDArray[np.generic], bits: int, portable: bool = False) -> tuple[F64, F64]:
    """Least and largest code of each row [groups, rows]: the first range of the width that holds the row's codes."""
    least, most = codes.min(axis=2), codes.max(axis=2)
    low, high = np.full(least.shape, np.nan), np.full(least.shape, np.nan)
    for first, last in ranges_of(bits, portable):
        fits = np.isnan(low) & (least >= first) & (most <= last)
        low, high = np.where(fits, first, low), np.where(fits, last, high)
    return low, high


def _share(v: F32) -> tuple[F32, F32]:
    """h(v), the share of the way up, and its derivative."""
    sigmoid = 1.0 / (1.0 + np.exp(-v))
    raw = 1.2 * sigmoid - 0.1
    slope = 1.2 * sigmoid * (1.0 - sigmoid) * ((raw > 0.0) & (raw < 1.0))
    return np.clip(raw, 0.0, 1.0).astype(np.float32, copy=False), slope.astype(np.float32, copy=False)


def _inverse_of_share(h: F64) -> F64:
    """v with h(v) = h, for h between 0 and 1."""
    sigmoid = (h + 0.1) / 1.2
    v: F64 = np.log(sigmoid / (1.0 - sigmoid))
    return v


def _decide(h: F32, done: float) -> F32:
    """Derivative of lambda mean(1 - |2 h - 1|^beta) once a share `done` of the steps is behind."""
    if done < WARM_UP:
        return np.zeros(1, dtype=np.float32)
    beta = BETA[1] + (BETA[0] - BETA[1]) * 0.5 * (1.0 + np.cos(np.pi * (done - WARM_UP) / (1.0 - WARM_UP)))
    side = 2.0 * h - 1.0
    derivative: F32 = np.float32(-WEIGHT / h.shape[2] * 2.0 * beta) * np.sign(side) * np.abs(side) ** np.float32(beta - 1.0)
    return derivative


class _Adam:
    """Steps of Adam for one array, with the constants of the paper."""

    def __init__(self, like: F32, step: float) -> None:
        self._mean, self._square = np.zeros_like(like), np.zeros_like(like)
        self._step, self._number = step, 0

    def __call__(self, values: F32, gradient: F32) -> F32:
        """The values after one step down the gradient."""
        self._number += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient**2 - self._square)
        root = np.sqrt(self._square / (1.0 - 0.999**self._number)) + 1e-8
        moved: F32 = values - np.float32(self._step / (1.0 - 0.9**self._number)) * self._mean / root
        return moved
