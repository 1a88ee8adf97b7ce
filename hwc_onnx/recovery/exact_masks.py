"""The best mask of a layer whose rows are narrow: every set of zeros of every row is looked at.

With t the target of a row, zeros Z and the rest solved for, the error is t_Z ([A^-1]_ZZ)^-1 t_Z: the cost of Optimal Brain Surgeon
(Hassibi & Stork, NIPS 1992) for several weights at once, exact. What is least for each number of zeros makes a table of
each row, and how many zeros each row gets is then the knapsack problem in which all weights are one, solved by dynamic
programming. Depthwise layers and first layers have such rows.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.statistics import F64

WIDEST = 9
"""A 3 x 3 kernel: 512 sets of zeros."""
MOST_ROWS = 4096


def narrow(shape: tuple[int, ...]) -> bool:
    """Whether the rows [groups, rows, d] can be searched."""
    return shape[2] <= WIDEST and shape[0] * shape[1] <= MOST_ROWS


def exact_mask(tables: tuple[F64, NDArray[np.int64]], zeros: int) -> NDArray[np.bool_]:
    """The mask [groups, rows, d] with exactly `zeros` zeros that leaves the least error once the others are solved for.

    Args:
        tables: of the rows (`row_tables`).
        zeros: how many, in the layer.
    """
    groups, rows, choices = tables[0].shape
    errors, masks = tables[0].reshape(-1, choices), tables[1].reshape(-1, choices)
    best = masks[np.arange(len(errors)), shared_out(errors, zeros)]
    keep: NDArray[np.bool_] = (best[:, None] >> np.arange(choices - 1) & 1) == 0
    return keep.reshape(groups, rows, choices - 1)


def row_tables(target: F64, matrix: F64) -> tuple[F64, NDArray[np.int64]]:
    """The least error of each row with 0 .. d zeros [groups, rows, d + 1], and the sets of zeros that have it, as bits.

    Args:
        target: t [groups, rows, d].
        matrix: A [groups, d, d].
    """
    width = target.shape[2]
    inverse = np.linalg.inv(matrix)
    least = np.zeros((*target.shape[:2], width + 1))
    sets = np.zeros(least.shape, dtype=np.int64)
    for count in range(1, width + 1):
        at = np.array(list(combinations(range(width), count)))
        middle = np.linalg.inv(inverse[:, at[:, :, None], at[:, None, :]])
        given_up = target[:, :, at]
        errors = np.einsum("grzi,gzij,grzj->grz", given_up, middle, given_up, optimize=True)
        best = errors.argmin(axis=2)
        least[:, :, count] = np.take_along_axis(errors, best[:, :, None], axis=2)[:, :, 0]
        sets[:, :, count] = (1 << at).sum(axis=1)[best]
    return least, sets


def shared_out(errors: F64, total: int) -> NDArray[np.int64]:
    """How many of `total` zeros each row gets so that the sum of `errors` [rows, d + 1] at their numbers is least.

    Raises:
        ValueError: more zeros than weights.
    """
    rows, choices = errors.shape
    if not 0 <= total <= rows * (choices - 1):
        raise ValueError(f"{total} zeros do not fit into {rows} rows of {choices - 1}; ask for at most {rows * (choices - 1)}")
    best = np.full(total + 1, np.inf)
    best[0] = 0.0
    taken = np.zeros((rows, total + 1), dtype=np.int8)
    for row, error in enumerate(errors):
        offered = np.full((choices, total + 1), np.inf)
        for count in range(min(choices, total + 1)):
            offered[count, count:] = best[: total + 1 - count] + error[count]
        taken[row] = offered.argmin(axis=0)
        best = offered.min(axis=0)
    counts = np.zeros(rows, dtype=np.int64)
    for row in reversed(range(rows)):
        counts[row] = taken[row, total]
        total -= counts[row]
    return counts
