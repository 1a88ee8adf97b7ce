"""Second moments of a layer's inputs: all that the closed-form repairs need to know about the data.

A layer is a matrix product Y = W X + b whose columns of X are im2col patches (or tokens). Each output row only needs
the Gram matrix X X^T and the mean of X, so the patches themselves are never kept.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.judging import Judge

F64 = NDArray[np.float64]
WIDEST = 12288
"""A layer with more inputs than this (1.2 GB a matrix) is not seen; it is rounded without repair."""
KEPT_BYTES = 32 << 20
"""What tells errors is made again each time where it takes more than this."""
JUDGES_BYTES = 256 << 20
"""What tells errors of all layers together, in one process; what was used last stays."""
_JUDGES = ByteCache(JUDGES_BYTES)


@dataclass(frozen=True)
class Moments:
    """Sums over `rows` input patches: `gram` [groups, d, d] of x x^T and `total` [groups, d] of x (float64)."""

    gram: F64
    total: F64
    rows: int

    @property
    def mean(self) -> F64:
        """Mean patch [groups, d]."""
        return self.total / max(self.rows, 1)

    @property
    def never(self) -> int:
        """Inputs of all groups that were zero throughout."""
        return int((np.einsum("gdd->gd", self.gram) == 0.0).sum())

    def second_moment(self, centred: bool) -> F64:
        """E[x x^T] [groups, d, d], or the covariance when `centred` (what is left once a bias absorbs the mean)."""
        if not centred:
            return self.gram / max(self.rows, 1)
        mean = self.mean
        covariance: F64 = self.gram / max(self.rows, 1)
        covariance -= mean[:, :, None] * mean[:, None, :]
        return covariance

    def judge(self, centred: bool) -> Judge:
        """What tells errors by `second_moment(centred)`."""
        found: Judge | None = _JUDGES.get((self._owner, centred))
        if found is None:
            found = Judge(self.second_moment(centred), self.rows, KEPT_BYTES)
            if found.nbytes <= KEPT_BYTES:
                _JUDGES.put((self._owner, centred), found, found.nbytes)
        return found

    @cached_property
    def _owner(self) -> object:
        return object()

    def digest(self) -> str:
        """SHA-256 of the contents."""
        hasher = hashlib.sha256(str((self.gram.shape, self.rows)).encode())
        hasher.update(np.ascontiguousarray(self.gram).tobytes())
        hasher.update(np.ascontiguousarray(self.total).tobytes())
        return hasher.hexdigest()

    @classmethod
    def identity(cls, groups: int, width: int) -> Moments:
        """White inputs of mean zero: what is assumed for a layer without data."""
        return cls(np.broadcast_to(np.eye(width), (groups, width, width)).copy(), np.zeros((groups, width)), 1)


class Room:
    """Arrays of zeros: in memory up to `limit_bytes` in all, then in unnamed temporary files that are paged in as needed."""

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes

    def zeros(self, shape: tuple[int, ...]) -> F64:
        """Float64 zeros of this shape."""
        size = 8 * int(np.prod(shape, dtype=np.int64))
        if size <= self._left:
            self._left -= size
            return np.zeros(shape)
        with tempfile.TemporaryFile(prefix="hwc-onnx-") as file:
            file.truncate(size)
            paged: F64 = np.memmap(file, np.float64, "r+", shape=shape)
        return paged


class MomentsBuilder:
    """Accumulates `Moments` from patches that arrive in batches; memory is one Gram matrix per group, out of `room`."""

    def __init__(self, groups: int, width: int, room: Room | None = None) -> None:
        self._gram = (room or Room(2**62)).zeros((groups, width, width))
        self._total = np.zeros((groups, width))
        self._rows = 0

    def add(self, patches: NDArray[np.floating]) -> None:
        """Add patches [groups, n, d]."""
        self._gram += (patches.transpose(0, 2, 1) @ patches).astype(np.float64)
        self._total += patches.sum(axis=1, dtype=np.float64)
        self._rows += patches.shape[1]

    def build(self) -> Moments:
        """The moments of everything added; the last call."""
        return Moments(self._gram, self._total, self._rows)


@dataclass(frozen=True)
class LayerStatistics:
    """One layer's calibration: moments to fit on, and moments of other images to judge by."""

    fit: Moments
    heldout: Moments

    def digest(self) -> str:
        """SHA-256 of what the repairs read."""
        return hashlib.sha256((self.fit.digest() + self.heldout.digest()).encode()).hexdigest()
