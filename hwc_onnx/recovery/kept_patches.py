"""Patches of one layer from the original and the compressed network, at the same positions, and those that are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.activated import Activated
from hwc_onnx.recovery.statistics import F64

KEPT_BYTES = 256 << 20
"""Patches of one layer are kept up to this size, for targets behind its activation function."""

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """Patches at the same positions, [groups, n, ..]: the original input, what the shortcut lacks and what it is in the compressed
    network (None without one), the compressed input.
    """

    original: F32
    missing: F32 | None
    added: F32 | None
    new: F32

    def together(self) -> F32:
        """What the moments of a `Posed` are of."""
        missing = [] if self.missing is None else [self.missing]
        return np.concatenate([self.original, *missing, self.new], axis=2)

    def part(self, where: slice) -> Patches:
        """Some of the positions."""
        missing, added = (None if each is None else each[:, where] for each in (self.missing, self.added))
        return Patches(self.original[:, where], missing, added, self.new[:, where])


class KeptPatches:
    """Collects the patches of a layer whose original rows are `rows`, as long as they take no more than `KEPT_BYTES`."""

    def __init__(self, rows: F64, bias: NDArray[np.generic] | None, bounds: tuple[float, float]) -> None:
        self._rows = rows.astype(np.float32)
        given = np.zeros(rows.shape[:2]) if bias is None else np.asarray(bias).reshape(rows.shape[:2])
        self._bias, self._bounds = given.astype(np.float32), bounds
        self._parts: tuple[list[tuple[F32, F32, F32 | None]], ...] = ([], [])
        self._room = KEPT_BYTES

    def add(self, both: tuple[Patches, Patches]) -> None:
        """Patches of one batch: to fit to, and to judge by."""
        for parts, one in zip(self._parts, both, strict=True):
            if self._room < 0 or not one.new.shape[1]:
                continue
            wanted = one.original @ self._rows.transpose(0, 2, 1)
            wanted = wanted if one.missing is None else wanted + one.missing
            self._room -= one.new.nbytes + (1 if one.added is None else 2) * wanted.nbytes
            parts.append((one.new, wanted, one.added))

    def found(self) -> tuple[Activated, Activated] | None:
        """All of them; None where they were too many, or none is left to judge by."""
        if self._room < 0 or not all(self._parts):
            return None
        fit, heldout = (self._joined(parts) for parts in self._parts)
        return fit, heldout

    def _joined(self, parts: list[tuple[F32, F32, F32 | None]]) -> Activated:
        inputs, wanted = (np.concatenate([part[place] for part in parts], axis=1) for place in (0, 1))
        added = [part[2] for part in parts if part[2] is not None]
        return Activated(inputs, wanted, np.concatenate(added, axis=1) if added else None, self._bias, *self._bounds)
