"""Rows of a sliding window, counted exactly: strides, dilation, padding, tiles and PEs included.

Row of output o and tap k: o * stride + k * dilation - pad. A tile is a set of outputs times a set of taps; what it
needs are the *distinct* rows inside the tensor. With loop index = (temporal) * unroll + (PE), outputs of one tile lie
`unroll` apart, so counting sets is safer than a formula; results are cached because layers share geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Axis:
    """One axis of a window: outputs, taps, stride, dilation, leading pad and rows of the windowed tensor."""

    outputs: int
    taps: int
    stride: int
    dilation: int
    pad: int
    size: int


@dataclass(frozen=True)
class Cut:
    """How outputs (or taps) are cut: `extent` temporal steps, `inside` PEs under one memory, `whole` PEs in all."""

    extent: int
    inside: int
    whole: int

    def tiles(self, length: int) -> NDArray[np.int64]:
        """Tile number of each index 0..length-1; the same number means held together in one memory instance."""
        index = np.arange(length)
        step, lane = np.divmod(index, self.whole)
        tile: NDArray[np.int64] = (step // self.extent) * -(-self.whole // self.inside) + lane // self.inside
        return tile


@lru_cache(maxsize=1 << 17)
def rows_moved(axis: Axis, outputs: Cut, taps: Cut, first_output: int = 0, first_tap: int = 0) -> int:
    """Distinct in-range rows of each tile, added over all tiles and memory instances.

    Outputs and taps before the given ones are left out.
    """
    rows = np.arange(axis.outputs)[:, None] * axis.stride + np.arange(axis.taps)[None, :] * axis.dilation - axis.pad
    under = taps.tiles(axis.taps)
    tile = outputs.tiles(axis.outputs)[:, None] * (int(under.max()) + 1) + under[None, :]
    inside = (rows >= 0) & (rows < axis.size)
    inside[:first_output] = False
    inside[:, :first_tap] = False
    keys = (tile * axis.size + rows)[inside]
    if keys.size == 0:
        return 0
    span = int(keys.max()) + 1
    if span <= 1 << 20:
        seen = np.zeros(span, dtype=bool)
        seen[keys] = True
        return int(np.count_nonzero(seen))
    return int(np.unique(keys).size)


def rows_held(
    axis: Axis,
    outputs: NDArray[np.int64],
    taps: NDArray[np.int64],
    output_step: NDArray[np.int64] | int,
    tap_step: NDArray[np.int64] | int,
) -> NDArray[np.int64]:
    """Largest number of distinct rows of a tile of `outputs` x `taps`, whose indices lie the given steps apart.

    i a + j b with a, b coprime repeats exactly at (i + b, j - a), so p r pairs give p r - max(0, p - b) max(0, r - a)
    distinct rows. Padding is not subtracted (some tile of the interior has none), the tensor's size limits it.
    """
    stride, dilation = axis.stride * np.asarray(output_step), axis.dilation * np.asarray(tap_step)
    common = np.gcd(stride, dilation)
    shared = np.maximum(outputs - dilation // common, 0) * np.maximum(taps - stride // common, 0)
    held: NDArray[np.int64] = np.minimum(outputs * taps - shared, axis.size)
    return held
