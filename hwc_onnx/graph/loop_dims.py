"""Loop dimensions of a layer, in the notation of the accelerator literature.

B batch, G groups, K output channels per group, C input channels per group, OY x OX output rows x columns, FY x FX
kernel rows x columns. Y is vertical: index 0 of ONNX's spatial attributes. A matrix product [.., M, C] x [C, K] has
OY = M (the rows), OX = FY = FX = 1, an input of M rows and one column, and G the batch of matrices when both operands
are activations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopDims:
    """The loop nest of one layer. `pads` are (top, left, bottom, right), `input_size` is (rows, columns)."""

    B: int = 1
    G: int = 1
    K: int = 1
    C: int = 1
    OY: int = 1
    OX: int = 1
    FY: int = 1
    FX: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    input_size: tuple[int, int] = (1, 1)
    transposed: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates, counting products with padding zeros (as every reference tool does).

        For a transposed convolution OY x OX is the *input* grid that each kernel tap is multiplied with, so that the
        product is the true number of multiply-accumulates.
        """
        return self.B * self.G * self.K * self.C * self.OY * self.OX * self.FY * self.FX
