"""Loop dimensions of a layer, in the notation of the accelerator literature.

B batch, G groups, K output channels per group, C input channels per group, OY x OX output rows x columns, FY x FX
kernel rows x columns. Y is vertical: index 0 of ONNX's spatial attributes. A matrix product [.., M, C] x [C, K] has
OY = M (the rows), OX = FY = FX = 1, an input of M rows and one column, and G the batch of matrices when both operands
are activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hwc_onnx.errors import ModelError


@dataclass(frozen=True)
class LoopDims:
    """The loop nest of one layer. `pads` are (top, left, bottom, right), `input_size` is (rows, columns).

    An `input_size` that is left out is what the windows cover, padding taken off (the input grid of a transposed one).

    Raises:
        ModelError: a size that is not a whole number above 0 (such as the name of an open dimension).
    """

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
    input_size: tuple[int, int] = (0, 0)
    transposed: bool = False

    def __post_init__(self) -> None:
        for name in ("B", "G", "K", "C", "OY", "OX", "FY", "FX"):
            object.__setattr__(self, name, _whole(getattr(self, name), name, 1))
        for name, least, count in (("stride", 1, 2), ("dilation", 1, 2), ("pads", None, 4), ("input_size", 0, 2)):
            given = getattr(self, name)
            sizes = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else ()
            if len(sizes) != count:
                raise ModelError(f"loop dimensions, {name}: found {given!r}, expected {count} whole numbers")
            object.__setattr__(self, name, tuple(_whole(size, name, least) for size in sizes))
        if self.input_size == (0, 0):
            covered = [
                out if self.transposed else max(1, (out - 1) * self.stride[i] + (taps - 1) * self.dilation[i] + 1 - before - after)
                for i, (out, taps, before, after) in enumerate((
                    (self.OY, self.FY, self.pads[0], self.pads[2]), (self.OX, self.FX, self.pads[1], self.pads[3])
                ))
            ]  # fmt: skip
            object.__setattr__(self, "input_size", tuple(covered))
        for size in self.input_size:
            _whole(size, "input_size", 1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, counting products with padding zeros (as every reference tool does).

        For a transposed convolution OY x OX is the *input* grid that each kernel tap is multiplied with, so that the
        product is the true number of multiply-accumulates.
        """
        return self.B * self.G * self.K * self.C * self.OY * self.OX * self.FY * self.FX


def _whole(size: object, name: str, least: int | None) -> int:
    """The number as an `int`; refused if it is not a whole one of at least `least`."""
    if isinstance(size, bool) or not hasattr(size, "__index__") or (least is not None and int(size.__index__()) < least):
        named = size is None or isinstance(size, str)
        raise ModelError(
            f"loop dimension {name}: found {size!r}, expected a whole number"
            f"{'' if least is None else f' of at least {least}'}"
            f"{'; fix open sizes with --input-shape NAME:1x3x224x224' if named else ''}"
        )
    return int(size.__index__())
