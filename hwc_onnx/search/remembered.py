"""Figures that a run has measured and a continued run would measure again, kept in its cache.

The file is JSON, {key: number}; one that cannot be read counts as empty, and one that cannot be written is done without.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from hwc_onnx.errors import HwcError
from hwc_onnx.files import write_atomic

MOST_BYTES = 2**24
"""A larger file is none of ours."""


class Remembered:
    """Numbers by key, in memory and, with a `path`, on the disk."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known = {} if path is None else _read(path)

    def get(self, key: str) -> float | None:
        """What was measured, exactly."""
        return self._known.get(key)

    def keep(self, key: str, value: float) -> float:
        """Remember and return a value."""
        self._known[key] = value
        if self.path is not None:
            with suppress(HwcError):
                write_atomic(self.path, json.dumps(self._known).encode(), "--run-dir")
        return value


def _read(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: float(value) for key, value in found.items() if isinstance(value, float) and math.isfinite(value)}
