"""Settings of several layers made at the same time: in processes where there is much to do, else in threads.

Threads share one interpreter, which they need between any two operations on arrays: two of them do less than one and a
half times the work of one. Processes take a second or two to start and get copies of what they work on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from hwc_onnx.recovery.byte_cache import ByteCache
from hwc_onnx.recovery.layer import LayerRecovery, RepairedRows, Setting
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
    """What makes one layer's rows, ready to be sent: `LayerRecovery` without what it remembers."""

    digest: str
    arguments: tuple[object, ...]
    options: Mapping[str, object]

    @classmethod
    def of(cls, digest: str, worker: LayerRecovery) -> Side:
        """The layer of `worker`; `digest` tells layers apart."""
        both = worker.statistics
        bare = LayerStatistics(_bare(both.fit), both.heldout if both.heldout is both.fit else _bare(both.heldout))
        arguments = (worker.layout, worker.rows, worker.bias, bare, worker.takes_bias, worker.recovery, worker.portable)
        return cls(digest, arguments, {"taken": worker.taken, "power_of_two": worker.power_of_two})

    def layer(self) -> LayerRecovery:
        """The layer in this process; the last one is remembered, with its problems and masks."""
        if self.digest not in _LAST:
            _LAST.clear()
            cache = ByteCache(REMEMBERED_BYTES)
            _LAST[self.digest] = LayerRecovery(*self.arguments, **{"cache": cache, **self.options})  # type: ignore[arg-type]
        return _LAST[self.digest]


_LAST: dict[str, LayerRecovery] = {}


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
) -> Iterator[list[RepairedRows]]:
    """The rows of each part, in order."""
    weights = sum(layers[key].rows.size * len(settings) for key, settings in parts)
    if workers > 1 and weights >= WORTH_PROCESSES:
        yield from _in_processes(parts, layers, digest, workers)
        return
    # threads of a BLAS that wait for one another under several of ours take many times longer
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max(1, workers)) as pool:
        yield from pool.map(lambda part: layers[part[0]].build_many(part[1]), parts)


def _in_processes(
    parts: Sequence[Part], layers: Mapping[str, LayerRecovery], digest: Callable[[str], str], workers: int
) -> Iterator[list[RepairedRows]]:
    from joblib import Parallel, delayed, parallel_config

    tasks = (delayed(_made)(Side.of(digest(key), layers[key]), settings) for key, settings in parts if settings)
    with parallel_config(backend="loky", inner_max_num_threads=1):
        made = iter(Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)(tasks))
    for _, settings in parts:
        yield next(made) if settings else []


def _made(side: Side, settings: Sequence[Setting]) -> list[RepairedRows]:
    """In a process of its own."""
    with threadpool_limits(1, user_api="blas"):
        return side.layer().build_many(settings)


def _bare(moments: Moments) -> Moments:
    """Without what was worked out from them, and not tied to a file that only this process sees."""
    return replace(moments, gram=np.array(moments.gram), total=np.array(moments.total))
