"""Input patches of a layer at sampled output positions: the columns of X in Y = W X.

Positions are drawn anew for each batch, the same number for every image, so that no image weighs more than another.
A transposed convolution is a plain one over the input with zeros between its pixels and the kernel turned around;
patches are gathered in the order of the weight's own taps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer

F32 = NDArray[np.float32]
SPARSE = 4
"""Where an image has more than so many pixels for each one that is read, they are read where they lie."""


@dataclass(frozen=True)
class Along:
    """Where the samples of a batch lie in a tensor: along `axis`, `each` places for one sample, one after the other."""

    axis: int
    each: int

    def part(self, array: F32, first: int, stop: int) -> F32:
        """The places of the samples from `first` up to `stop`."""
        cut: F32 = array[(slice(None),) * self.axis + (slice(first * self.each, stop * self.each),)]
        return cut


FIRST = Along(0, 1)
"""The first axis, one place for each sample."""


def along_batch(shape: Sequence[int], declared: Sequence[int], count: int, fixed: int | None) -> Along | None:
    """Where `count` samples lie in a tensor of `shape` that is `declared` for one sample (for `fixed` ones, where the model
    takes so many at once); None where no single axis follows the batch.

    A sample may take several places: windows or tokens folded into the first axis by a Reshape.
    """
    if len(shape) != len(declared) or not shape:
        return None
    if fixed is not None:
        axes = [axis for axis in range(len(shape)) if shape[axis] == declared[axis] and shape[axis] % fixed == 0]
        return Along(axes[0], shape[axes[0]] // fixed) if axes and (axes[0] == 0 or len(axes) == 1) else None
    grown = [axis for axis in range(len(shape)) if shape[axis] != declared[axis]]
    if not grown:
        return Along(0, shape[0]) if count == 1 else None
    if len(grown) > 1 or shape[grown[0]] != declared[grown[0]] * count:
        return None
    return Along(grown[0], declared[grown[0]])


def patches_of(
    layer: Layer,
    attributes: Mapping[str, Any],
    x: F32,
    per_image: int,
    rng: np.random.Generator,
    along: Along | None = FIRST,
) -> NDArray[np.float32]:
    """Patches [groups, n, d] of a batch `x` of the layer's input, about `per_image` positions of each sample at most, those of
    a sample side by side.

    `attributes` are the node's; the column order is that of `hwc_onnx.recovery.layout`. Where no axis follows the batch (`along`
    None), `x` is read as one sample.
    """
    each = 1 if along is None else along.each
    if layer.op_type == "Conv":
        return conv_patches(layer, attributes, x, -(-per_image // each), rng)
    if layer.op_type == "ConvTranspose":
        return transposed_patches(layer, attributes, x, -(-per_image // each), rng)
    return token_patches(layer, attributes, x, per_image, rng, along)


def token_patches(
    layer: Layer,
    attributes: Mapping[str, Any],
    x: F32,
    per_image: int,
    rng: np.random.Generator,
    along: Along | None = FIRST,
) -> NDArray[np.float32]:
    """Rows (or columns, for a weight on the left) of a matrix product's activation, [1, n, d]."""
    left = layer.op_type == "MatMul" and layer.output_axis == len(layer.weight_shape) - 2
    flipped = left or (layer.op_type == "Gemm" and bool(attributes.get("transA", 0)))
    axis, count = 0, 1
    if along is not None and x.ndim > 1:
        axis, count = along.axis, x.shape[along.axis] // along.each
    if flipped and x.ndim > 1:
        x = np.moveaxis(x, -2, -1)
        axis = x.ndim - 2 if axis == x.ndim - 1 else axis
    tokens = np.moveaxis(x, axis, 0).reshape(count, -1, x.shape[-1])
    return _sample(tokens, per_image, rng)[None]


def _sample(tokens: F32, per_image: int, rng: np.random.Generator) -> F32:
    """`per_image` of the tokens [images, n, d] of each image, [images * per_image, d]."""
    images, available, width = tokens.shape
    if available <= per_image:
        return np.ascontiguousarray(tokens.reshape(-1, width), dtype=np.float32)
    chosen = np.argsort(rng.random((images, available)), axis=1)[:, :per_image]
    return np.ascontiguousarray(tokens[np.arange(images)[:, None], chosen].reshape(-1, width), dtype=np.float32)


def _two_dimensional(x: F32) -> F32:
    """[N, C, L] as [N, C, L, 1]: one spatial axis is the vertical one, as in the loop dimensions."""
    return x[:, :, :, None] if x.ndim == 3 else x


def _pair(values: Any, default: int, spatial: int) -> tuple[int, int]:
    """An ONNX attribute of one or two numbers as (rows, columns)."""
    numbers = [int(v) for v in values] if values else [default] * spatial
    return (numbers[0], default) if spatial == 1 else (numbers[0], numbers[1])


def _gather(padded: F32, groups: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Patches [groups, n, C/G * taps] at pixel `rows`, `columns` [images, positions, taps] of [N, C, Y, X]."""
    images, channels = padded.shape[:2]
    positions, taps = rows.shape[1:]
    at = np.arange(images)[:, None, None]
    if SPARSE * rows[0].size < padded[0, 0].size:
        taken = padded[at, :, rows, columns]
    else:
        taken = np.ascontiguousarray(padded.transpose(0, 2, 3, 1))[at, rows, columns]
    split = taken.reshape(images * positions, taps, groups, channels // groups)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1)).reshape(groups, images * positions, -1)


def _positions(images: int, available: int, per_image: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Output positions [images, n]: all of them when few, else a draw without replacement per image."""
    if available <= per_image:
        return np.broadcast_to(np.arange(available), (images, available)).astype(np.int64)
    return np.argsort(rng.random((images, available)), axis=1)[:, :per_image].astype(np.int64)


def conv_patches(
    layer: Layer, attributes: Mapping[str, Any], x: F32, per_image: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Patches of a Conv (1-D or 2-D; grouped, strided, dilated), [groups, n, C/G * taps]."""
    dims = layer.loop_dims
    x = _two_dimensional(np.asarray(x, dtype=np.float32))
    top, left, bottom, right = dims.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))) if any(dims.pads) else x
    (sy, sx), (dy, dx) = dims.stride, dims.dilation
    across = (padded.shape[3] - (dims.FX - 1) * dx - 1) // sx + 1
    down = (padded.shape[2] - (dims.FY - 1) * dy - 1) // sy + 1
    at = _positions(len(x), across * down, per_image, rng)
    tap_y, tap_x = (t.reshape(-1) for t in np.meshgrid(np.arange(dims.FY), np.arange(dims.FX), indexing="ij"))
    rows = (at // across)[:, :, None] * sy + tap_y * dy
    columns = (at % across)[:, :, None] * sx + tap_x * dx
    return _gather(padded, dims.G, rows, columns)


def transposed_patches(
    layer: Layer, attributes: Mapping[str, Any], x: F32, per_image: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Patches of a ConvTranspose: what each tap of an output pixel is multiplied with, zero where nothing lands."""
    dims = layer.loop_dims
    spatial = x.ndim - 2
    x = _two_dimensional(np.asarray(x, dtype=np.float32))
    (sy, sx), (dy, dx), (top, left, bottom, right) = dims.stride, dims.dilation, dims.pads
    extra_y, extra_x = _pair(attributes.get("output_padding"), 0, spatial)
    down = (x.shape[2] - 1) * sy + (dims.FY - 1) * dy + 1 + extra_y - top - bottom
    across = (x.shape[3] - 1) * sx + (dims.FX - 1) * dx + 1 + extra_x - left - right
    at = _positions(len(x), across * down, per_image, rng)
    tap_y, tap_x = (t.reshape(-1) for t in np.meshgrid(np.arange(dims.FY), np.arange(dims.FX), indexing="ij"))
    source_y = (at // across)[:, :, None] + top - tap_y * dy
    source_x = (at % across)[:, :, None] + left - tap_x * dx
    inside = (source_y % sy == 0) & (source_x % sx == 0)
    rows, columns = source_y // sy, source_x // sx
    inside &= (rows >= 0) & (rows < x.shape[2]) & (columns >= 0) & (columns < x.shape[3])
    padded = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
    rows = np.where(inside, rows, x.shape[2])
    columns = np.where(inside, columns, x.shape[3])
    return _gather(padded, dims.G, rows, columns)
