"""Which loop dimensions each operand of a layer depends on.

Inputs, weights and outputs (I, W, O) each depend on some dimensions one to one, on others not at all, and one of them
through the sliding window: the input of a convolution, the output of a transposed one (there OY x OX walk over the
input, and each input element is scattered into a window of the output).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwc_onnx.cost.accelerator import Operand
from hwc_onnx.cost.window import Axis, Cut, rows_moved
from hwc_onnx.graph.loop_dims import LoopDims

DIMS = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
INDEX = {name: i for i, name in enumerate(DIMS)}
OPERANDS: tuple[Operand, ...] = ("I", "W", "O")
B, G, K, C, OY, OX, FY, FX = range(8)


@dataclass(frozen=True)
class Dependence:
    """Dimension indices that an operand follows (`plain`), repeats over (`repeated`) or sees through a window."""

    plain: tuple[int, ...]
    repeated: tuple[int, ...]
    windowed: bool


def dependence(operand: Operand, transposed: bool) -> Dependence:
    """How `operand` depends on the loops."""
    if operand == "W":
        return Dependence((G, K, C, FY, FX), (B, OY, OX), False)
    if operand == "I":
        return Dependence((B, G, C, OY, OX), (K, FY, FX), False) if transposed else Dependence((B, G, C), (K,), True)
    return Dependence((B, G, K), (C,), True) if transposed else Dependence((B, G, K, OY, OX), (C, FY, FX), False)


@dataclass(frozen=True)
class Nest:
    """A layer as the mapper sees it: sizes of the eight loops and the two window axes."""

    dims: LoopDims

    @property
    def sizes(self) -> tuple[int, ...]:
        """Loop sizes in the order of DIMS."""
        dims = self.dims
        return (dims.B, dims.G, dims.K, dims.C, dims.OY, dims.OX, dims.FY, dims.FX)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Vertical and horizontal window axes."""
        dims = self.dims
        axes = []
        for i, (outputs, taps) in enumerate(((dims.OY, dims.FY), (dims.OX, dims.FX))):
            stride, dilation, pad = dims.stride[i], dims.dilation[i], dims.pads[i]
            size = dims.input_size[i]
            if dims.transposed:
                size = max(1, (outputs - 1) * stride + (taps - 1) * dilation + 1 - pad - dims.pads[i + 2])
            axes.append(Axis(outputs, taps, stride, dilation, pad, size))
        return axes[0], axes[1]

    def words(self, operand: Operand) -> int:
        """Distinct elements of an operand that the layer touches."""
        follows = dependence(operand, self.dims.transposed)
        plain = math.prod(self.sizes[d] for d in follows.plain)
        if not follows.windowed:
            return plain
        whole = [rows_moved(axis, Cut(axis.outputs, 1, 1), Cut(axis.taps, 1, 1)) for axis in self.axes]
        return plain * whole[0] * whole[1]
