"""Better masks: zeros change places with weights while that lowers the error, and what stays is solved for.

For a row with target t, matrix A and values q on the kept positions S, freeing a zero at j lowers the error by about
g_j^2 [A^-1]_jj ... g_j^2 / A_jj with the gradient g = (t - q) A, and giving up a kept i costs between q_i^2 / [A^-1]_ii and
q_i^2 A_ii, depending on how much the others make up for. Both are ranked by the geometric mean of their bounds,

    gain_j = g_j^2 sqrt([A^-1]_jj / A_jj)        cost_i = q_i^2 sqrt(A_ii / [A^-1]_ii)

and the best pairs change places, a few at a time; a row takes the exchange only if its error has fallen once the values on the
new positions are solved for, else it tries half as many. All rows go together and only multiply by A, so that a layer of
any width costs some tens of passes over its weights; ranking by the exact inverse on S, row by row, is no better after 20
rounds of this and takes twenty times as long.

Source: the cost of giving up a weight is that of Optimal Brain Surgeon (Hassibi & Stork, NIPS 1992), bounded; exchanges after
one-shot pruning, Zhang et al., Dynamic Sparse No Training (ICLR 2024), there by a score of means and variances; conjugate
gradients on the kept weights, Meng et al., ALPS (NeurIPS 2024), section 3.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.pruning.base import spread, summed
from hwc_onnx.recovery.statistics import F64

ROUNDS = 20
SHARE = 0.04
"""Share of a row's positions that change places at once, at first."""
STEPS = 6
"""Conjugate gradient steps before an exchange is judged."""
SETTLING = 20
"""Steps on the last mask."""
FEWEST_STEPS = 3
MULTIPLICATIONS = 2e10
"""What one mask may cost; wide layers get fewer rounds and steps, the widest none and three."""


def solved(values: F64, target: F64, matrix: F64, keep: NDArray[np.bool_], steps: int = SETTLING) -> F64:
    """Values [groups, rows, d] that approach argmin (t - q) A (t - q)^T on the kept positions of each row.

    Conjugate gradients with the diagonal as preconditioner, all rows at once; no row errs more than `values` with zeros elsewhere.
    """
    if not steps:
        return values
    steps = max(min(steps, int(MULTIPLICATIONS / products(keep))), min(steps, FEWEST_STEPS))
    diagonal = np.einsum("gdd->gd", matrix)[:, None]
    values = values * keep
    residual = ((target - values) @ matrix) * keep
    scaled = residual / diagonal
    direction = scaled.copy()
    power = (residual * scaled).sum(axis=2, keepdims=True)
    for _ in range(steps):
        moved = (direction @ matrix) * keep
        curvature = (direction * moved).sum(axis=2, keepdims=True)
        step = np.divide(power, curvature, out=np.zeros_like(power), where=curvature > 0)
        values = values + step * direction
        residual = residual - step * moved
        scaled = residual / diagonal
        before, power = power, (residual * scaled).sum(axis=2, keepdims=True)
        direction = scaled + np.divide(power, before, out=np.zeros_like(power), where=before > 0) * direction
    return values


def exchanged(
    values: F64,
    target: F64,
    matrix: F64,
    factor: F64,
    keep: NDArray[np.bool_],
    runs: NDArray[np.int64] | None = None,
    rounds: int = ROUNDS,
    settling: int = SETTLING,
    whole: bool = False,
) -> tuple[NDArray[np.bool_], F64]:
    """A mask [groups, rows, d] with as many zeros in each row as `keep` and no larger error, and its values.

    It does in single precision as well: only which positions are kept matters until the values are solved for at last.

    Args:
        values: where to start from.
        target: t [groups, rows, d].
        matrix: A [groups, d, d].
        factor: U with A^-1 = U^T U [groups, d, d].
        keep: the mask to start from.
        runs: [n, M] positions within which zeros change places (-1: none), where each run keeps as many as it has.
        rounds: how often places are exchanged at most.
        settling: steps on the last mask.
        whole: runs change places as wholes, each of them kept or zero; costs and gains are then the sums over a run.
    """
    ratio = ratio_of(matrix, factor)
    keep, values = keep.copy(), solved(values, target, matrix, keep, 2 * STEPS)
    error = row_errors(values, target, matrix)
    units = runs if whole else None
    width = keep.shape[2]
    if units is not None:
        keep = keep[:, :, units[:, 0]]
    pairs = np.full(keep.shape[:2], max(1, int(SHARE * keep.shape[2])))
    for _ in range(min(rounds, int(MULTIPLICATIONS / ((STEPS + 2) * products(values))))):
        rows = np.flatnonzero((pairs > 0).any(axis=0))
        if not len(rows):
            break
        here, now, aim, most = keep[:, rows], values[:, rows], target[:, rows], pairs[:, rows]
        gradient = (aim - now) @ matrix
        costs, gains = now**2 * ratio, gradient**2 / ratio
        if units is not None:
            costs, gains = summed(costs, units), summed(gains, units)
        cost, gain = np.where(here, costs, np.inf), np.where(here, -np.inf, gains)
        if runs is None or whole:
            leaving, coming = _ranked(cost, gain, int(most.max()))
        else:
            leaving, coming = _ranked_in_runs(cost, gain, runs)
        worth = np.take_along_axis(gain, coming, axis=2) > np.take_along_axis(cost, leaving, axis=2)
        group, row, at = np.nonzero(worth & (np.arange(worth.shape[2]) < most[:, :, None]))
        tried = here.copy()
        tried[group, row, leaving[group, row, at]] = False
        tried[group, row, coming[group, row, at]] = True
        mask = tried if units is None else spread(tried, units, width)
        moved = solved(now, aim, matrix, mask, STEPS)
        reached = row_errors(moved, aim, matrix)
        better = reached < error[:, rows]
        keep[:, rows] = np.where(better[:, :, None], tried, here)
        values[:, rows] = np.where(better[:, :, None], moved, now)
        error[:, rows] = np.where(better, reached, error[:, rows])
        pairs[:, rows] = np.where(better, most, most // 2)
    if units is not None:
        keep = spread(keep, units, width)
    return keep, solved(values, target, matrix, keep, settling)


def ratio_of(matrix: F64, factor: F64) -> F64:
    """sqrt(A_jj / [A^-1]_jj) [groups, 1, d]."""
    inverse = np.einsum("gkd,gkd->gd", factor, factor)
    ratio: F64 = np.sqrt(np.einsum("gdd->gd", matrix) / inverse)[:, None]
    return ratio


def products(rows: NDArray[np.generic]) -> float:
    """Multiplications of rows [groups, rows, d] with their matrices."""
    return float(rows.size * rows.shape[2])


def _ranked(cost: F64, gain: F64, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first `count` positions by rising cost and by falling gain, [groups, rows, count]."""
    return _first(cost, count), _first(-gain, count)


def _first(values: F64, count: int) -> NDArray[np.int64]:
    if count < values.shape[2]:
        places = np.argpartition(values, count - 1, axis=2)[:, :, :count]
        order = np.argsort(np.take_along_axis(values, places, axis=2), axis=2, kind="stable")
        return np.take_along_axis(places, order, axis=2)
    return np.argsort(values, axis=2, kind="stable")


def _ranked_in_runs(cost: F64, gain: F64, runs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each run the position of least cost and that of largest gain, [groups, rows, n], the best pairs first."""
    outside = runs < 0
    costs = np.where(outside, np.inf, cost[:, :, runs])
    gains = np.where(outside, -np.inf, gain[:, :, runs])
    which = np.arange(len(runs))
    leaving, coming = runs[which, costs.argmin(axis=3)], runs[which, gains.argmax(axis=3)]
    order = np.argsort(costs.min(axis=3) - gains.max(axis=3), axis=2, kind="stable")
    return np.take_along_axis(leaving, order, axis=2), np.take_along_axis(coming, order, axis=2)


def row_errors(values: F64, target: F64, matrix: F64) -> F64:
    """(t - q) A (t - q)^T of each row [groups, rows]."""
    difference = target - values
    error: F64 = np.einsum("grd,grd->gr", difference @ matrix, difference)
    return error
