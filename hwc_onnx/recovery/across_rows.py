"""Zeros that change rows: after exchanges within rows (exchange.py), places are given up where they cost least in the whole layer and
taken where they gain most.

Costs and gains are those of exchange.py. All rows' values on the new positions are
solved for before the exchange is judged, by the error of the whole layer; if it has not fallen, half as many places are tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.exchange import MULTIPLICATIONS, STEPS, products, ratio_of, row_errors, solved
from hwc_onnx.recovery.statistics import F64

ROUNDS = 20
SHARE = 0.02
"""Share of the layer's positions that change places at once, at first."""


def across_rows(
    values: F64, target: F64, matrix: F64, factor: F64, keep: NDArray[np.bool_], rounds: int = ROUNDS
) -> tuple[NDArray[np.bool_], F64]:
    """A mask [groups, rows, d] with as many zeros as `keep` and no larger error in all, and its values.

    Args:
        values: where to start from, zero where `keep` is False.
        target: t [groups, rows, d].
        matrix: A [groups, d, d].
        factor: U with A^-1 = U^T U [groups, d, d].
        keep: the mask to start from.
        rounds: how often places are exchanged at most.
    """
    ratio = ratio_of(matrix, factor)
    error = float(row_errors(values, target, matrix).sum())
    count = max(1, int(SHARE * keep.size))
    for _ in range(min(rounds, int(MULTIPLICATIONS / ((STEPS + 2) * products(keep))))):
        gradient = (target - values) @ matrix
        cost = np.where(keep, values**2 * ratio, np.inf).ravel()
        gain = np.where(keep, -np.inf, gradient**2 / ratio).ravel()
        leaving, coming = _least(cost, count), _least(-gain, count)
        better = gain[coming] > cost[leaving]
        tried = keep.copy()
        tried.ravel()[leaving[better]] = False
        tried.ravel()[coming[better]] = True
        moved = solved(values, target, matrix, tried, STEPS)
        reached = float(row_errors(moved, target, matrix).sum())
        if reached < error:
            keep, values, error = tried, moved, reached
        elif count == 1:
            break
        else:
            count //= 2
    return keep, values


def _least(values: F64, count: int) -> NDArray[np.int64]:
    """The places of the `count` least values, the least first."""
    places = np.argpartition(values, min(count, values.size - 1))[:count] if count < values.size else np.arange(values.size)
    return places[np.argsort(values[places], kind="stable")]
