"""Samples that are prepared only when they are taken, so that a split costs memory only for what it uses."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.checks import check_finite, check_inputs
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError

Fetch = Callable[[NDArray[np.int64]], dict[str, NDArray[np.generic]]]
IN_MEMORY_BYTES = 1 << 30
"""Prepared arrays above this size are kept in an unnamed temporary file and paged in as needed."""
_BLOCK = 32


@dataclass(frozen=True)
class Pool:
    """`size` samples; `fetch(index)` prepares those at the given positions as the model reads them.

    `labels` is [size, ...] or None. `where` names the source in error messages.
    """

    size: int
    labels: NDArray[np.generic] | None
    fetch: Fetch
    specs: tuple[InputSpec, ...]
    where: str

    def __len__(self) -> int:
        return self.size

    def samples(self, index: NDArray[np.int64] | None = None) -> Samples:
        """Prepared samples at these positions (None: all), checked against what the model reads.

        Raises:
            DataError: wrong names, types or shapes, or values that are not finite.
        """
        positions = np.arange(self.size) if index is None else index
        arrays: dict[str, NDArray[Any]] = {}
        for start in range(0, len(positions), _BLOCK):
            part = self.fetch(positions[start : start + _BLOCK])
            check_inputs(part, self.specs, self.where)
            check_finite(part, self.where)
            for spec in self.specs:
                values = part[spec.name]
                if spec.name not in arrays:
                    arrays[spec.name] = _allocate((len(positions), *values.shape[1:]), values.dtype)
                arrays[spec.name][start : start + len(values)] = values
        return Samples(arrays, None if self.labels is None else self.labels[positions], np.asarray(positions, np.int64))


@dataclass(frozen=True)
class Data:
    """A loaded source: samples to calibrate and search with, and a separate holdout if the source has one.

    `preprocess` is how images become inputs, for the file's metadata (empty: the source is already prepared).
    `real` is False for synthetic inputs. `digest` identifies the content. `notes` are for the user. `unit` is what messages
    call the samples.
    """

    pool: Pool
    holdout: Pool | None
    preprocess: Mapping[str, object]
    source: str
    real: bool
    digest: str
    notes: tuple[str, ...] = field(default=())
    unit: str = "samples"


def array_pool(
    arrays: Mapping[str, NDArray[np.generic]],
    labels: NDArray[np.generic] | None,
    specs: Sequence[InputSpec],
    prepare: Callable[[NDArray[np.generic], InputSpec], NDArray[np.generic]],
    where: str,
) -> Pool:
    """A pool over arrays [N, ...] that are already in memory; `prepare` turns a part of one into the model's input."""

    def fetch(index: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        return {spec.name: prepare(arrays[spec.name][index], spec) for spec in specs}

    return Pool(len(arrays[specs[0].name]), labels, fetch, tuple(specs), where)


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An empty array, backed by an unnamed temporary file when large.

    Raises:
        DataError: there is no room for the file; without asking first, writing to it would end the process.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            reserve = getattr(os, "posix_fallocate", None)
            reserve(file.fileno(), 0, size) if reserve is not None else file.truncate(size)
        except OSError as error:
            raise DataError(
                f"samples: {size / 2**30:.3g} GiB of temporary space are needed in {tempfile.gettempdir()} ({error.strerror}); "
                "make room, set TMPDIR to another folder, or use fewer samples (--calibration-samples, --search-samples)"
            ) from error
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
