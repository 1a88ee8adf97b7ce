"""Settings of several layers made at the same time: in processes where there is much to do, else in threads.

Threads share one interpreter, which they need between any two operations on arrays: two of them do less than one and a
half times the work of one. Processes take a second or two to start and get copies of what they work on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from threadpoolctl import ThreadpoolController

from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.layer import LayerRecovery
from hwc_onnx.recovery.setting import RepairedRows, Setting
from hwc_onnx.recovery.statistics import LayerStatistics, Moments

Part = tuple[str, Sequence[Setting]]

WORTH_PROCESSES = 2e7
"""Weights in all settings together from which on processes are started: some ten seconds of work."""
RESULT_BYTES = 64 << 20
"""Results that one part hands over at once, about."""
REMEMBERED_BYTES = 256 << 20
"""What a process keeps of the layer that it works on."""


@dataclass(frozen=True)
class Side:
    """What makes one layer's rows, ready to be sent: `LayerRecovery` without what it remembers, and whose process sends it."""

    digest: str
    arguments: tuple[object, ...]
    options: Mapping[str, object]
    sender: int

    @classmethod
    def of(cls, digest: str, worker: LayerRecovery) -> Side:
        """The layer of `worker`; `digest` tells layers apart."""
        assert worker.prior is None
        both = worker.statistics
        bare = LayerStatistics(_bare(both.fit), both.heldout if both.heldout is both.fit else _bare(both.heldout))
        arguments = (worker.layout, worker.rows, worker.bias, bare, worker.takes_bias, worker.recovery, worker.portable)
        return cls(digest, arguments, {"taken": worker.taken, "power_of_two": worker.power_of_two}, os.getpid())

    def layer(self) -> LayerRecovery:
        """The layer in this process; the last one is remembered, with its problems and masks."""
        if self.digest not in _LAST:
            _LAST.clear()
            cache = ByteCache(REMEMBERED_BYTES)
            _LAST[self.digest] = LayerRecovery(*self.arguments, **{"cache": cache, **self.options})  # type: ignore[arg-type]
        return _LAST[self.digest]


_LAST: dict[str, LayerRecovery] = {}
_BLAS: list[ThreadpoolController] = []
_WATCHED: set[int] = set()


def one_blas_thread() -> AbstractContextManager[object]:
    """Products with one thread, whatever the environment says, so that their last digits are always the same."""
    if not _BLAS:
        import scipy.linalg  # noqa: F401  brings a BLAS of its own, which must be there to be limited

        _BLAS.append(ThreadpoolController())
    return cast("AbstractContextManager[object]", _BLAS[0].limit(limits=1, user_api="blas"))


def parts_of(missing: Mapping[str, Sequence[Setting]], layers: Mapping[str, LayerRecovery], workers: int) -> list[Part]:
    """The settings of each layer in parts, the longest work first; no part takes more than half of a worker's share."""
    work = {key: layers[key].rows.size * layers[key].rows.shape[2] * len(settings) for key, settings in missing.items()}
    most = max(sum(work.values()) // (2 * workers), 1)
    found: list[Part] = []
    for key in sorted(missing, key=lambda key: -work[key]):
        size = layers[key].rows.size * len(missing[key])
        count = max(-(-work[key] // most), -(-size // RESULT_BYTES) if workers > 1 else 1)
        found += [(key, part) for part in split(missing[key], count)]
    return found


def split(settings: Sequence[Setting], count: int) -> list[list[Setting]]:
    """The settings of a layer in about `count` equal parts, those that share columns and a mask side by side.

    A layer that takes longer than all others together would keep one worker busy and the others waiting.
    """

    def shared(setting: Setting) -> tuple[bytes, str, float]:
        columns = b"" if setting.columns is None else setting.columns.tobytes()
        return columns, "" if setting.mask is None else setting.mask.name, setting.ratio

    ordered = sorted(settings, key=shared)
    size = max(-(-len(ordered) // max(count, 1)), 1)
    return [ordered[first : first + size] for first in range(0, max(len(ordered), 1), size)]


def build(
    parts: Sequence[Part], layers: Mapping[str, LayerRecovery], digest: Callable[[str], str], workers: int
) -> Iterator[tuple[int, list[RepairedRows]]]:
    """The place of each part and its rows, as they are finished."""
    weights = sum(layers[key].rows.size * len(settings) for key, settings in parts)
    left = set(range(len(parts)))
    if workers > 1 and weights >= WORTH_PROCESSES:
        try:
            for place, rows in _in_processes(parts, layers, digest, workers):
                left.discard(place)
                yield place, rows
        except BrokenExecutor:  # one was killed, perhaps for want of memory: the rest is made here
            pass
    # threads of a BLAS that wait for one another under several of ours take many times longer
    with one_blas_thread(), ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(layers[parts[place][0]].build_many, parts[place][1]): place for place in sorted(left)}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _in_processes(
    parts: Sequence[Part], layers: Mapping[str, LayerRecovery], digest: Callable[[str], str], workers: int
) -> Iterator[tuple[int, list[RepairedRows]]]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky import get_reusable_executor

    def tasks() -> Iterator[object]:
        side: Side | None = None
        for place, (key, settings) in enumerate(parts):
            # parts of a layer follow one another and share what is sent
            if side is None or side.digest != digest(key):
                side = Side.of(digest(key), layers[key])
            yield delayed(_made)(place, side, settings)

    try:
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield from Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="n_jobs+1")(tasks())
    finally:
        get_reusable_executor().shutdown(wait=False)  # idle processes would keep their memory


def _made(place: int, side: Side, settings: Sequence[Setting]) -> tuple[int, list[RepairedRows]]:
    """In a process of its own, which ends with the one that started it."""
    if side.sender not in _WATCHED:
        _WATCHED.add(side.sender)
        threading.Thread(target=_end_with, args=(side.sender,), daemon=True).start()
    with one_blas_thread():
        return place, side.layer().build_many(settings)


def _end_with(sender: int) -> None:
    while os.getppid() == sender:
        time.sleep(0.5)
    os._exit(1)


def _bare(moments: Moments) -> Moments:
    """Without what was worked out from them, and not tied to a file that only this process sees."""
    gram = np.array(moments.gram) if isinstance(moments.gram, np.memmap) else moments.gram
    return replace(moments, gram=gram)
