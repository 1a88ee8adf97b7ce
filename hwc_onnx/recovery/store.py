"""Repaired rows kept by content: in memory up to a number of bytes, and as safetensors files in a cache folder.

The key is a hash of everything the rows depend on, so a file is either right or absent. Files are written beside their
place and renamed; a damaged file is made again. The folder is kept below a size by removing what was used
longest ago.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.setting import RepairedRows

logger = logging.getLogger(__name__)

SLACK = 0.1
"""The folder is brought below its limit again each time that this share of it was written."""
UNFINISHED = ".tmp"
STALE_SECONDS = 3600.0
"""A file that was begun so long ago was left by a process that ended."""


class EntryStore:
    """Rows by content hash; `folder` None keeps them in memory only."""

    def __init__(self, folder: Path | None, memory_bytes: int = 512 << 20, disk_bytes: int = 2 << 30) -> None:
        self._memory = ByteCache(memory_bytes)
        self._folder, self._limit = folder, disk_bytes
        self._written = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            _shrink(folder, disk_bytes)

    def get(self, key: str) -> RepairedRows | None:
        """The rows, or None where they were never made or their file is damaged."""
        found = self._memory.get(key)
        if found is not None:
            assert isinstance(found, RepairedRows)
            return found
        folder = self._folder
        if folder is None:
            return None
        path = folder / f"{key}.safetensors"
        try:
            rows = decode(path.read_bytes())
            os.utime(path)
        except (OSError, ValueError):
            return None
        self._memory.put(key, rows, _size(rows))
        return rows

    def put(self, key: str, rows: RepairedRows) -> None:
        """Keep the rows, on disk too where there is a folder; a disk that fails ends the caching, not the work."""
        self._memory.put(key, rows, _size(rows))
        folder = self._folder
        if folder is None:
            return
        temporary = folder / f".{key}.{os.getpid()}.{get_ident()}{UNFINISHED}"
        data = encode(rows)
        try:
            if self._written + len(data) > SLACK * self._limit:
                _shrink(folder, self._limit)
                self._written = 0
            temporary.write_bytes(data)
            os.replace(temporary, folder / f"{key}.safetensors")
            self._written += len(data)
        except OSError as error:
            logger.warning("%s: entries are no longer cached on disk (%s)", folder, error.strerror)
            self._folder = None
            temporary.unlink(missing_ok=True)


def encode(rows: RepairedRows) -> bytes:
    """The rows as safetensors bytes."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {"codes": rows.codes, "errors": np.array([rows.error_fit, rows.error_heldout])}
    for name in ("scale", "bias"):
        value = getattr(rows, name)
        if value is not None:
            arrays[name] = value
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def decode(data: bytes) -> RepairedRows:
    """Rows from safetensors bytes (ValueError when they are not such bytes)."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        fit, heldout = arrays["errors"].tolist()
        return RepairedRows(arrays["codes"], arrays.get("scale"), arrays.get("bias"), fit, heldout)
    except (SafetensorError, KeyError) as error:
        raise ValueError("not an entry") from error


def _size(rows: RepairedRows) -> int:
    return sum(array.nbytes for array in (rows.codes, rows.scale, rows.bias) if array is not None) + 256


def _shrink(folder: Path, limit: int) -> None:
    """Remove the files used longest ago until the folder holds at most `limit` bytes, and what dead processes left."""
    files = []
    for path in folder.glob(f".*{UNFINISHED}"):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)
        except OSError:
            continue
    for path in folder.glob("*.safetensors"):
        try:
            status = path.stat()
        except OSError:
            continue
        files.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size
