"""A weight masked and rounded without any repair, some rows at a time: it may be larger than the memory that is left.

The result is that of `LayerRecovery` for recovery "none" and "ranges". Without moments of the inputs there is nothing to
repair with, and errors are those on white inputs: the squared difference of the weights over the squared weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.external import BLOCK_BYTES
from hwc_onnx.graph.layer_graph import FLOAT_BITS
from hwc_onnx.pruning.base import WeightContext
from hwc_onnx.recovery.folding import folded
from hwc_onnx.recovery.layer import STEPS
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.scales import ranges_of, search_scale, storable
from hwc_onnx.recovery.setting import RepairedRows, Setting
from hwc_onnx.recovery.statistics import F64

ROW_BYTES = BLOCK_BYTES // 4
"""Rows in float64 that are worked on at a time; there are several arrays of this size."""


def rounded(
    weight: NDArray[np.generic],
    layout: RowLayout,
    setting: Setting,
    recovery: str,
    portable: bool,
    bias: NDArray[np.float32] | None,
    power_of_two: bool = False,
) -> RepairedRows:
    """The rows of `weight` (ONNX layout) under `setting`; real numbers at 16 bits.

    Args:
        weight: the weight as it is; read some rows at a time.
        layout: how it maps to rows.
        setting: what becomes of it.
        recovery: "none" (the largest weight sets the scale) or "ranges" (the scale is searched).
        portable: limit 8-bit codes to 63.
        bias: handed on.
        power_of_two: only such scales.
    """
    columns = setting.columns
    keep = None if setting.mask is None else _white_mask(weight, layout, setting)
    blocks = partial(_row_blocks, weight, layout, setting, keep)
    width = layout.width if columns is None else len(columns)
    scale = None
    if setting.bits < FLOAT_BITS:
        low, high = ranges_of(setting.bits, portable)[0]
        ones, steps = np.ones((layout.groups, width)), STEPS[recovery]
        found = [search_scale(rows, ones, low, high, steps, power_of_two) for rows, _, _ in blocks()]
        scale = storable(np.concatenate(found, axis=1), layout.tied, power_of_two)
    codes = np.empty((layout.groups, layout.rows, width), np.float32 if scale is None else np.int8)
    error = power = 0.0
    for rows, part, whole in blocks():
        made = rows
        codes[:, part] = rows
        if scale is not None:
            made = np.clip(np.rint(rows / scale[:, part, None]), low, high)
            codes[:, part] = made
            made *= scale[:, part, None]
        before = float(np.square(whole).sum())
        changed = whole if columns is None else whole[:, :, columns]
        gone = before - float(np.square(changed).sum())
        error += setting.noise * float(np.square(made).sum()) + float(np.square(changed - made).sum()) + gone
        power += before
    relative = error / max(power, 1e-30)
    stored = None if scale is None else scale.astype(np.float32)
    return RepairedRows(codes, stored, bias, relative, relative)


def _white_mask(weight: NDArray[np.generic], layout: RowLayout, setting: Setting) -> NDArray[np.bool_]:
    """The positions [groups, rows, kept columns] that a fine-grained algorithm keeps where inputs count as white."""
    assert setting.mask is not None
    rows = _read(layout.to_rows(weight), setting)
    flat = rows.reshape(-1, rows.shape[2])
    ones = np.broadcast_to(1.0, flat.shape)
    return setting.mask.keep(flat, setting.ratio, WeightContext(layout.taps, ones, ones)).reshape(rows.shape)


def _read(rows: F64, setting: Setting) -> F64:
    """The weights [groups, n, kept] of what is still read; on white inputs, a least-squares refit leaves them as they are."""
    if setting.columns is None:
        return rows
    if setting.refit:
        return rows[:, :, setting.columns]
    return (rows if setting.into is None else folded(rows, setting.into))[:, :, setting.columns] * setting.rescale


def _row_blocks(
    weight: NDArray[np.generic], layout: RowLayout, setting: Setting, keep: NDArray[np.bool_] | None
) -> Iterator[tuple[F64, slice, F64]]:
    """(what stays of the rows [groups, n, kept] in float64, which rows, the rows as they are) for consecutive rows."""
    step = max(1, ROW_BYTES // max(layout.groups * layout.width * 8, 1))
    for start in range(0, layout.rows, step):
        part = slice(start, min(start + step, layout.rows))
        whole = layout.some_rows(weight, part)
        rows = _read(whole, setting)
        yield rows if keep is None else rows * keep[:, part], part, whole
