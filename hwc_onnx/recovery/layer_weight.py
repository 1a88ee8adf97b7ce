"""Repaired rows as the weight of a layer, and back to what the weight was multiplied with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams
from hwc_onnx.recovery.layout import RowLayout
from hwc_onnx.recovery.setting import RepairedRows, Taken
from hwc_onnx.recovery.statistics import F64

Index = NDArray[np.int64]
Codes = NDArray[np.int8] | NDArray[np.float32]


def taken_by(layer: Layer, layout: RowLayout, taken: Mapping[tuple[str, int], F64]) -> Taken | None:
    """What equalization multiplied a layer's rows with, from the factors by (initializer, axis); None for nothing."""
    rows, columns = (taken.get((layer.weight or "", axis)) for axis in (layer.output_axis, layer.input_axis))
    if (rows is None and columns is None) or layout.groups * layout.rows != layout.outputs or layout.stack > 1:
        return None
    by_row = np.ones((layout.groups, layout.rows)) if rows is None else rows.reshape(layout.groups, layout.rows)
    by_column = np.ones((layout.groups, layout.width))
    if columns is not None and layout.groups == 1:
        by_column = np.repeat(columns, layout.taps)[None, :]
    return Taken(by_row, by_column)


def quantized(rows: RepairedRows, layout: RowLayout, bits: int) -> QuantizedWeight:
    """Rows as the weight of a layer in the ONNX layout."""
    codes = cast(Codes, layout.from_rows(rows.codes))
    params = None
    if rows.scale is not None:
        scale = cast(NDArray[np.float32], layout.flat(rows.scale))
        params = QuantParams(scale, np.zeros(scale.shape, np.int32), bits, True, layout.output_axis)
    return QuantizedWeight(codes, params, rows.bias, float(np.count_nonzero(codes)) / codes.size)


def select_outputs(weight: QuantizedWeight, axis: int, rows: Index) -> QuantizedWeight:
    """The weight with only these output channels along `axis`."""
    codes = cast(Codes, np.take(weight.codes, rows, axis=axis))
    bias = weight.bias[rows] if weight.bias is not None and len(weight.bias) == weight.codes.shape[axis] else weight.bias
    params = weight.params
    if params is not None:
        params = QuantParams(params.scale[rows], params.zero_point[rows], params.bits, params.signed, params.axis)
    density = float(np.count_nonzero(codes)) / codes.size
    return QuantizedWeight(codes, params, bias, density)
