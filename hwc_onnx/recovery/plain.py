"""A weight rounded without any repair, some rows at a time: it may be larger than the memory that is left.

The result is that of `LayerRecovery` for recovery "none" and "ranges". Without moments of the inputs, errors are those on
white inputs: the squared difference of the weights over the squared weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.external import BLOCK_BYTES
from hwc_onnx.recovery.layer import STEPS, RepairedRows
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.scales import ranges_of, search_scale, storable
from hwc_onnx.recovery.statistics import F64

ROW_BYTES = BLOCK_BYTES // 4
"""Rows in float64 that are worked on at a time; there are several arrays of this size."""


def rounded(
    weight: NDArray[np.generic],
    layout: RowLayout,
    bits: int,
    recovery: str,
    portable: bool,
    noise: float,
    bias: NDArray[np.float32] | None,
    power_of_two: bool = False,
) -> RepairedRows:
    """The rows of `weight` (ONNX layout) at `bits`.

    Args:
        weight: the weight as it is; read some rows at a time.
        layout: how it maps to rows.
        bits: width of the codes.
        recovery: "none" (the largest weight sets the scale) or "ranges" (the scale is searched).
        portable: limit 8-bit codes to 63.
        noise: variance of the rounding error of each input.
        bias: handed on.
        power_of_two: only such scales.
    """
    low, high = ranges_of(bits, portable)[0]
    ones = np.ones((layout.groups, layout.width))
    steps = STEPS[recovery]
    found = [search_scale(rows, ones, low, high, steps, power_of_two) for rows, _ in _row_blocks(weight, layout)]
    scale = storable(np.concatenate(found, axis=1), layout.tied, power_of_two)
    codes = np.empty((layout.groups, layout.rows, layout.width), np.int8)
    error = power = 0.0
    for rows, part in _row_blocks(weight, layout):
        by = scale[:, part, None]
        made = np.clip(np.rint(rows / by), low, high)
        codes[:, part] = made
        made *= by
        error += noise * float(np.square(made).sum()) + float(np.square(rows - made).sum())
        power += float(np.square(rows).sum())
    relative = error / max(power, 1e-30)
    return RepairedRows(codes, scale.astype(np.float32), bias, relative, relative)


def _row_blocks(weight: NDArray[np.generic], layout: RowLayout) -> Iterator[tuple[F64, slice]]:
    """(rows [groups, n, d] in float64, which ones) for consecutive rows of each group."""
    step = max(1, ROW_BYTES // max(layout.groups * layout.width * 8, 1))
    for start in range(0, layout.rows, step):
        part = slice(start, min(start + step, layout.rows))
        yield layout.some_rows(weight, part), part
