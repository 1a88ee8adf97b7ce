"""Optimal Brain Surgeon in its fixed-order form: zero or round one column at a time, later columns make up for it.

For A^-1 = U^T U with U upper triangular, replacing column j of a row by q_j costs ((w_j - q_j) / U_jj)^2 and moves the
later columns by -(w_j - q_j) / U_jj * U[j, j+1:]. Columns are taken in natural order: sorting them by size is known to
ruin depthwise networks. All rows share U, so a layer costs O(d^3 + rows * d^2).

Source: Frantar & Alistarh, SparseGPT (ICML 2023), Algorithm 1; Frantar et al., GPTQ (ICLR 2023), section 3.
Differs from the papers: blocks are of equal size, and zeroing and rounding share one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.statistics import F64

BLOCK = 32
SELECTION_BLOCK = 128

Replace = Callable[[int, F64], F64]
"""What takes the place of a column [groups, rows], by its number in the block."""
T = TypeVar("T", np.float32, np.float64, np.bool_)


def blocks(width: int, size: int) -> list[tuple[int, int]]:
    """Nearly equal [start, stop) blocks of at most `size` columns."""
    count = max(1, -(-width // size))
    edges = [round(i * width / count) for i in range(count + 1)]
    return list(pairwise(edges))


def slices(count: int, rows: int | None) -> list[slice]:
    """`count` rows as versions of `rows` each, which are multiplied one by one.

    The last digits of a product may depend on its shape; so those of a version do not depend on what it is stacked with.
    """
    size = rows or count
    return [slice(first, first + size) for first in range(0, count, size)]


def columns_of(array: NDArray[T], first: int, last: int) -> NDArray[T]:
    """A copy of some columns of `array` [groups, rows, d], each one run of memory: [groups, columns, rows]."""
    return np.array(array[:, :, first:last].transpose(0, 2, 1), order="C")


def rows_of(array: NDArray[T], rows: NDArray[np.int64]) -> NDArray[T]:
    """Some rows of each group of `array` [groups, rows, d]; `rows` [groups, chosen] names them."""
    return array[np.arange(len(array))[:, None], rows]


def sweep(
    weight: F64,
    factor: F64,
    spans: list[tuple[int, int]],
    start: Callable[[int, int, F64], Replace],
    rows: int | None = None,
) -> F64:
    """The common sweep: `start(first, last, columns)` sees a block and returns what replaces each of its columns.

    The weight may be several versions of `rows` each.
    """
    work = weight.copy()
    result = np.empty_like(work)
    diagonal = np.einsum("gdd->gd", factor)
    for first, last in spans:
        local = columns_of(work, first, last)
        replace = start(first, last, local)
        errors, values = np.empty_like(local), np.empty_like(local)
        for j in range(last - first):
            column = local[:, j]
            value = values[:, j] = replace(j, column)
            errors[:, j] = (column - value) / diagonal[:, None, first + j]
            if first + j + 1 < last:
                local[:, j + 1 :] -= factor[:, first + j, first + j + 1 : last, None] * errors[:, j, None, :]
        result[:, :, first:last] = values.transpose(0, 2, 1)
        if last < work.shape[2]:
            for at in slices(weight.shape[1], rows):
                work[:, at, last:] -= errors[:, :, at].transpose(0, 2, 1) @ factor[:, first:last, last:]
    return result


def obs_round(
    weight: F64,
    factor: F64,
    keep: NDArray[np.bool_] | None,
    scale: F64,
    low: int | F64,
    high: int | F64,
    rows: int | None = None,
) -> F64:
    """Integer codes (as real numbers) of `weight` [groups, rows, d] for per-row `scale` [groups, rows].

    Columns where `keep` is False become zero; the rest are rounded to scale * {low..high} (bounds may differ by row). The
    weight may be several versions of `rows` each.
    """

    def start(first: int, last: int, local: F64) -> Replace:
        free = None if keep is None else columns_of(keep, first, last)

        def replace(j: int, column: F64) -> F64:
            code = np.minimum(np.maximum(np.rint(column / scale), low), high)
            if free is not None:
                code *= free[:, j]
            return code * scale

        return replace

    return np.rint(sweep(weight, factor, blocks(weight.shape[2], BLOCK), start, rows) / scale[:, :, None])


def obs_mask(weight: F64, factor: F64, keep: NDArray[np.bool_]) -> F64:
    """Zero where `keep` is False and let the columns that follow make up for it; float64 [groups, rows, d]."""

    def start(first: int, last: int, local: F64) -> Replace:
        free = columns_of(keep, first, last)
        return lambda j, column: column * free[:, j]

    return sweep(weight, factor, blocks(weight.shape[2], BLOCK), start)


def gone(ratio: float, count: int, total: int) -> int:
    """How many of the first `count` of `total` are to go: one of all stays."""
    return min(round(ratio * count), total - 1)


def obs_select(weight: F64, factor: F64, ratio: float) -> tuple[NDArray[np.bool_], F64]:
    """Choose the zeros on the way: in each block, the share `ratio` of entries with the smallest (w_j / U_jj)^2.

    Returns the kept positions [groups, rows, d], with exactly round(ratio * size) zeros (one weight stays), and the
    compensated rows.
    """
    keep = np.ones(weight.shape, dtype=bool)
    diagonal = np.einsum("gdd->gd", factor)
    per_column = weight.shape[0] * weight.shape[1]

    def start(first: int, last: int, local: F64) -> Replace:
        score = (local.transpose(0, 2, 1) / diagonal[:, None, first:last]) ** 2
        count = gone(ratio, per_column * last, weight.size) - gone(ratio, per_column * first, weight.size)
        flat = np.ones(score.size, dtype=bool)
        flat[np.argsort(score.ravel(), kind="stable")[:count]] = False
        keep[:, :, first:last] = flat.reshape(score.shape)
        free = columns_of(keep, first, last)
        return lambda j, column: column * free[:, j]

    values = sweep(weight, factor, blocks(weight.shape[2], SELECTION_BLOCK), start)
    return keep, values
