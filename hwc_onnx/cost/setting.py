"""What a layer's energy depends on, besides the profile: a small hashable record that serves as a cache key."""

from __future__ import annotations

from typing import NamedTuple

from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.zero_pattern import Pattern

FREE_STEPS = 16
"""Free space in the home memory is counted down to sixteenths, so that few different settings meet in a search."""


class LayerSetting(NamedTuple):
    """One layer at one setting.

    Bits and densities of input, weight (or second operand) and stored output; `out_words` elements are stored (0: the
    result is consumed on the fly), `weighted` is False for a product of two activations. `channels` output channels
    have a bias and a scale. `nm` is the pattern of the weight's zeros.
    """

    dims: LoopDims
    weighted: bool
    activation_bits: int
    weight_bits: int
    activation_density: float
    weight_density: float
    nm: Pattern | None
    out_words: int
    out_bits: int
    out_density: float
    channels: int


class Place(NamedTuple):
    """Where a layer's tensors are: True if the tensor stays in the home memory, False if it travels through DRAM.

    For weights True means kept on chip for ever. `free` counts the `FREE_STEPS`-ths of the home memory that working
    tiles may take.
    """

    input_stays: bool = False
    weight_stays: bool = False
    output_stays: bool = False
    free: int = FREE_STEPS
