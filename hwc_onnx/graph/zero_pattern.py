"""Zeros of weights that lie in a pattern which hardware can skip: N of every M, or whole blocks.

Runs of M, and blocks, are of consecutive input channels at one kernel position of one output channel; where the channels
do not divide, the last one is shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hwc_onnx.graph.layer_graph import Layer


class Blocks(NamedTuple):
    """Blocks of `size` weights are zero as wholes; `share` of all weights lie in blocks that hold one which is not zero."""

    share: float
    size: int


Pattern = tuple[int, int] | Blocks
"""(N, M): at most N of every M weights are not zero; or blocks."""


def name_of(pattern: Pattern) -> str:
    """How an accelerator file calls it: "2:4", "1x4"."""
    return f"1x{pattern.size}" if isinstance(pattern, Blocks) else f"{pattern[0]}:{pattern[1]}"


def share_of(pattern: Pattern, channels: int | None = None) -> float:
    """Share of the weights that is left by the pattern in a layer of so many input channels of each group (None: whole runs).

    A last run of fewer than M channels keeps up to N: a layer with no more than N input channels stays dense.
    """
    if isinstance(pattern, Blocks):
        return pattern.share
    kept, run = pattern
    if channels is None:
        return kept / run
    whole, rest = divmod(max(channels, 1), run)
    return (whole * kept + min(kept, rest)) / max(channels, 1)


def claim_of(pattern: Pattern) -> str | list[int]:
    """How a file's metadata declares it; the share of blocks is counted anew on reading."""
    return name_of(pattern) if isinstance(pattern, Blocks) else list(pattern)


def follows_pattern(weight: NDArray[Any], layer: Layer, kept: int, run: int) -> bool:
    """Whether each run of `run` weights along the input channels holds at most `kept` that are not zero."""
    return bool((_runs(weight, layer, run).sum(axis=1) <= kept).all())


def filled_share(weight: NDArray[Any], layer: Layer, size: int) -> float:
    """Share of the weights that lie in blocks of `size` along the input channels which hold one that is not zero."""
    runs = _runs(weight, layer, size)
    channels = _channels(weight, layer)
    lengths = np.minimum(size, channels - size * np.arange(-(-channels // size)))
    return float((runs.any(axis=1) * np.tile(lengths, len(runs) // len(lengths))).sum() / weight.size)


def _channels(weight: NDArray[Any], layer: Layer) -> int:
    """Input channels of each group. The first axis of a ConvTranspose holds those of all groups, one after the other."""
    if layer.op_type == "ConvTranspose" and layer.loop_dims.G > 1:
        return layer.weight_shape[0] // layer.loop_dims.G
    return int(weight.shape[layer.input_axis])


def _runs(weight: NDArray[Any], layer: Layer, run: int) -> NDArray[np.bool_]:
    """Whether weights (ONNX layout) are not zero, by runs [n, run]; those of one row at one tap are consecutive."""
    channels = _channels(weight, layer)
    if channels != weight.shape[layer.input_axis]:
        rows = np.moveaxis(weight.reshape(-1, channels, *weight.shape[1:]), 1, -1)
    else:
        rows = np.moveaxis(weight, (layer.output_axis, layer.input_axis), (0, -1))
    padded = np.zeros((*rows.shape[:-1], -(-channels // run) * run), bool)
    padded[..., :channels] = rows != 0
    return padded.reshape(-1, run)
