"""Small layers with the data itself, so that every closed form can be checked against the samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.coordinate import Descent
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.quadratic import Quadratic, upper_factor_of_inverse
from hwc_onnx.recovery.statistics import LayerStatistics, Moments, MomentsBuilder

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Rows [G, R, d], input patches [G, n, d] to fit on and to judge by; correlated columns, means not zero."""

    weight: F64
    x: F64
    held: F64

    @property
    def statistics(self) -> LayerStatistics:
        return LayerStatistics(moments(self.x), moments(self.held))


def case(seed: int = 0, groups: int = 1, rows: int = 5, width: int = 7, samples: int = 60) -> Case:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(groups, width, width)) + np.eye(width)
    mean = rng.normal(size=(groups, 1, width))
    x, held = (rng.normal(size=(groups, samples, width)) @ mix + mean for _ in range(2))
    return Case(rng.normal(size=(groups, rows, width)), x, held)


def moments(x: F64) -> Moments:
    builder = MomentsBuilder(x.shape[0], x.shape[2])
    half = x.shape[1] // 2
    builder.add(x[:, :half])
    builder.add(x[:, half:])
    return builder.build()


def quadratic(one: Case) -> Quadratic:
    """Targets equal to the weights, matrix x x^T / n."""
    matrix = one.x.transpose(0, 2, 1) @ one.x / one.x.shape[1]
    return Quadratic(one.weight, matrix, upper_factor_of_inverse(matrix))


def output_error(one: Case, values: F64, x: F64 | None = None) -> F64:
    """Mean squared difference of the outputs on the samples, [G, R]."""
    inputs = one.x if x is None else x
    return ((inputs @ (one.weight - values).transpose(0, 2, 1)) ** 2).mean(axis=1)


def layout_for(groups: int, rows: int, channels: int, taps: int = 1) -> RowLayout:
    return RowLayout((groups * rows, channels, 1, taps), 0, groups, rows, channels, taps, False)


def descend_codes(
    codes: F64,
    scale: F64,
    target: F64,
    matrix: F64,
    low: int | F64,
    high: int | F64,
    keep: NDArray[np.bool_] | None = None,
    sweeps: int = 4,
) -> F64:
    """Cyclic sweeps of `Descent` over integer codes [groups, rows, d] until none moves."""
    descent = Descent(codes, target, matrix, low, high, keep)
    for _ in range(sweeps):
        if not descent.sweep(scale):
            break
    return descent.codes
