"""A layer's weight as a stack of matrices [groups, rows, d], and back.

Row r of group g is output channel g * rows + r; column c * taps + k is input channel c of the group at kernel tap k,
taps in row-major order. Conv [K, C/G, FY, FX], ConvTranspose [C, K/G, FY, FX] (the same tap order; the patches are
gathered to match), Gemm and MatMul [.., ..] with the layer's axes; the matrices of a stack lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer
from hwc_onnx.recovery.statistics import F64


@dataclass(frozen=True)
class RowLayout:
    """How one layer's weight maps to rows. `tied` says that one scale serves the same row of every group.

    (A ConvTranspose with groups has one scale per output channel *within* a group.) `shape` is the ONNX shape;
    `output_axis` the axis of per-channel parameters. `stack` is the number of matrices that a constant of more than two
    axes holds; a row goes through all of them, and an input channel is one column in each.
    """

    shape: tuple[int, ...]
    output_axis: int
    groups: int
    rows: int
    channels: int
    taps: int
    transposed: bool
    stack: int = 1

    @property
    def width(self) -> int:
        """Columns d of each group."""
        return self.stack * self.channels * self.taps

    @property
    def tied(self) -> bool:
        """Whether groups share scales."""
        return self.transposed and self.groups > 1

    @property
    def outputs(self) -> int:
        """Output channels of the layer."""
        return self.groups * self.rows

    def to_rows(self, weight: NDArray[np.generic]) -> F64:
        """Weight in ONNX layout to [groups, rows, d] float64."""
        array = np.asarray(weight, dtype=np.float64)
        if self.transposed:
            split = array.reshape(self.groups, self.channels, self.rows, self.taps)
            return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(self.groups, self.rows, self.width)
        moved = np.moveaxis(array, self.output_axis, 0)
        return np.ascontiguousarray(moved).reshape(self.groups, self.rows, self.width)

    def some_rows(self, weight: NDArray[np.generic], part: slice) -> F64:
        """Those rows of each group, as `to_rows` gives them: [groups, n, d]."""
        if self.transposed:
            split = weight.reshape(self.groups, self.channels, self.rows, self.taps)[:, :, part]
            rows = np.asarray(split, dtype=np.float64).transpose(0, 2, 1, 3)
        else:
            moved = np.moveaxis(weight, self.output_axis, 0)
            split = moved.reshape(self.groups, self.rows, *moved.shape[1:])[:, part]
            rows = np.asarray(split, dtype=np.float64)
        return np.ascontiguousarray(rows).reshape(self.groups, -1, self.width)

    def from_rows(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """[groups, rows, d] back to the ONNX layout (of `groups`, `rows` and `channels`, where some were removed)."""
        if self.transposed:
            split = rows.reshape(self.groups, self.rows, self.channels, self.taps).transpose(0, 2, 1, 3)
            return np.ascontiguousarray(split).reshape(self.groups * self.channels, self.rows, *self.shape[2:])
        rest = [size for axis, size in enumerate(self.shape) if axis != self.output_axis]
        if rest:
            place = -1 if self.stack > 1 else 0 if self.taps > 1 else rest.index(max(rest))
            rest[place] = 1
            rest[place] = self.width // int(np.prod(rest, dtype=np.int64))
        return np.ascontiguousarray(np.moveaxis(rows.reshape(self.outputs, *rest), 0, self.output_axis))

    def columns(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns that the given input channels own, in order."""
        if self.stack > 1:
            return (np.arange(self.stack)[:, None] * self.channels + channels[None, :]).reshape(-1).astype(np.int64)
        return (channels[:, None] * self.taps + np.arange(self.taps)[None, :]).reshape(-1).astype(np.int64)

    def flat(self, per_row: NDArray[np.generic]) -> NDArray[np.generic]:
        """[groups, rows] per-row numbers as the per-channel vector along `output_axis`."""
        return per_row[0].copy() if self.tied else per_row.reshape(-1).copy()


def layout_of(layer: Layer) -> RowLayout:
    """The layout of a layer that has a weight (ValueError for a MatMul of two activations)."""
    if layer.weight is None:
        raise ValueError(f"layer '{layer.key}' has no weight")
    shape = layer.weight_shape
    if layer.op_type == "ConvTranspose":
        groups = layer.loop_dims.G
        return RowLayout(shape, 1, groups, shape[1], shape[0] // groups, _taps(shape), True)
    if layer.op_type == "Conv":
        groups = layer.loop_dims.G
        return RowLayout(shape, 0, groups, shape[0] // groups, shape[1], _taps(shape), False)
    outputs = shape[layer.output_axis]
    if layer.state_weight is not None:
        shape = (*shape[:2], layer.loop_dims.C)
    channels = shape[layer.input_axis] if len(shape) > 1 else 1
    return RowLayout(shape, layer.output_axis, 1, outputs, channels, 1, False, int(np.prod(shape)) // (outputs * channels))


def _taps(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[2:], dtype=np.int64))
