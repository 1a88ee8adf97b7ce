"""What one layer is to become, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.pruning.base import FineAlgorithm
from hwc_onnx.recovery.statistics import F64


@dataclass(frozen=True)
class Setting:
    """What a layer becomes. `mask` is a fine-grained algorithm or None; `noise` the variance of input rounding.

    `columns` are the kept columns of each group (None: all), `rescale` the factor on what is read where no repair
    runs, `refit` asks for the least-squares refit to kept inputs even without other repairs. `into` [d] names for each column
    the one that its weights are added to where no repair runs (None: what is not kept is lost). `kept` [groups, rows, kept] is
    a mask that is settled; at most, zeros change places within rows.
    """

    bits: int
    mask: FineAlgorithm | None = None
    ratio: float = 0.0
    noise: float = 0.0
    columns: NDArray[np.int64] | None = None
    rescale: float = 1.0
    refit: bool = False
    into: NDArray[np.int64] | None = None
    kept: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Taken:
    """What equalization multiplied a layer's rows with: `rows` [groups, rows] times `columns` [groups, d]."""

    rows: F64
    columns: F64

    def digest_bytes(self) -> bytes:
        """The factors as bytes."""
        return self.rows.tobytes() + self.columns.tobytes()


@dataclass(frozen=True)
class RepairedRows:
    """Rows of one setting: integer `codes` [groups, rows, kept] and `scale` [groups, rows], or real rows (scale None).

    `bias` is [outputs] or None; the errors are squared output errors relative to the layer's output variance, on the
    moments fitted to and on the held-out ones (rounding noise included).
    """

    codes: NDArray[np.int8] | NDArray[np.float32]
    scale: NDArray[np.float32] | None
    bias: NDArray[np.float32] | None
    error_fit: float
    error_heldout: float
