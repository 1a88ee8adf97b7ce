"""Repaired rows of every layer of a model, made once and found again by the hash of what they depend on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.channels import WeightView
from hwc_onnx.recovery.layer import LayerRecovery, Recovery
from hwc_onnx.recovery.on_demand import OnDemand
from hwc_onnx.recovery.setting import RepairedRows, Setting
from hwc_onnx.recovery.side_by_side import build, one_blas_thread, parts_of
from hwc_onnx.recovery.store import EntryStore

ENTRY_VERSION = "14"
"""Part of every key: raised when the same setting would give other numbers."""

SHARED_BYTES = 1 << 30

ROWS_BYTES = 1 << 30
"""Rows of weights that are kept in memory; those used longest ago are made again."""


@dataclass(frozen=True)
class Parameters:
    """A layer's weight (ONNX layout), its bias [outputs] or None, and whether a bias may be changed or added."""

    weight: NDArray[np.generic]
    bias: NDArray[np.generic] | None
    takes_bias: bool


class Entries:
    """`RepairedRows` by layer key and setting."""

    def __init__(
        self,
        views: Mapping[str, WeightView],
        parameters: Mapping[str, Parameters],
        cache_dir: Path | None,
        recovery: Recovery,
        portable: bool,
        power_of_two: bool = False,
    ) -> None:
        self._views, self._parameters = views, parameters
        self._recovery, self._portable, self._power_of_two = recovery, portable, power_of_two
        self._store = EntryStore(cache_dir)
        self._shared = ByteCache(SHARED_BYTES)
        self._workers = OnDemand(views, self._worker, lambda worker: worker.rows.nbytes, ROWS_BYTES)
        self._digests: dict[str, str] = {}

    def rows(self, key: str, setting: Setting) -> RepairedRows:
        """The rows of one setting, from the cache or made now."""
        name = self._name(key, setting)
        found = self._store.get(name)
        if found is None:
            with one_blas_thread():
                found = self._workers[key].build(setting)
            self._store.put(name, found)
        return found

    def prepare(
        self, wanted: Mapping[str, Sequence[Setting]], workers: int, on_done: Callable[[int, int], None] | None = None
    ) -> int:
        """Make all settings `wanted` by layer key that are missing, each layer's together; returns how many.

        `on_done` hears how many of the layers are finished.
        """

        for key in wanted:
            self._digest(key)
            self._workers[key]
        missing = {key: self._missing(key, settings) for key, settings in wanted.items()}
        parts = parts_of(missing, self._workers, workers)
        left = Counter(key for key, _ in parts)
        made = 0
        for place, rows in build(parts, self._workers, self._digest, workers):
            key, settings = parts[place]
            for setting, one in zip(settings, rows, strict=True):
                self._store.put(self._name(key, setting), one)
            made += len(settings)
            left[key] -= 1
            if on_done is not None and not left[key]:
                on_done(sum(not count for count in left.values()), len(wanted))
        return made

    def _missing(self, key: str, settings: Sequence[Setting]) -> list[Setting]:
        """Settings without rows, each once."""
        found = {self._name(key, setting): setting for setting in settings}
        return [setting for name, setting in found.items() if self._store.get(name) is None]

    def _digest(self, key: str) -> str:
        """Hash of what all settings of a layer depend on."""
        if key not in self._digests:
            view, parameters = self._views[key], self._parameters[key]
            hasher = hashlib.sha256(view.statistics.digest().encode())
            for array in (parameters.weight, parameters.bias):
                if array is not None:
                    hasher.update(str((array.shape, array.dtype)).encode())
                    hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            how = (self._recovery, self._portable, *(("power of two",) if self._power_of_two else ()))
            kind = (ENTRY_VERSION, view.layout, parameters.takes_bias, *how)
            hasher.update(repr(kind).encode())
            hasher.update(b"" if view.taken is None else view.taken.digest_bytes())
            self._digests[key] = hasher.hexdigest()
        return self._digests[key]

    def _name(self, key: str, setting: Setting) -> str:
        """Hash of everything that the rows depend on."""
        mask = "" if setting.mask is None else setting.mask.name
        numbers = (setting.bits, mask, f"{setting.ratio:.6f}", f"{setting.noise:.9e}", f"{setting.rescale:.9e}")
        columns = b"" if setting.columns is None else setting.columns.tobytes()
        columns += b"" if setting.into is None else b"into" + setting.into.tobytes()
        text = repr((self._digest(key), numbers, setting.refit))
        return hashlib.sha256(text.encode() + columns).hexdigest()

    def _worker(self, key: str) -> LayerRecovery:
        view, parameters = self._views[key], self._parameters[key]
        return LayerRecovery(
            view.layout,
            view.rows,
            parameters.bias,
            view.statistics,
            parameters.takes_bias,
            self._recovery,
            self._portable,
            self._shared,
            taken=view.taken,
            power_of_two=self._power_of_two,
        )
