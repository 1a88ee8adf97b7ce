"""Seeds side by side: each process works on one seed at a time, with one thread for linear algebra and ONNX Runtime.

The environment is set before a worker loads either; this module loads neither itself. A worker ends with its parent, so
that a killed comparison leaves no process behind that holds a run folder.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from typing import Any

from hwc_onnx.errors import RuntimeFailure, UsageError

ONE_THREAD = ("HWC_ONNX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that hold the number of threads."""
SECONDS = 2.0
"""Between two looks at what is finished."""


def in_processes(
    work: Callable[[Any], Any], tasks: Sequence[Any], jobs: int, waiting: Callable[[], None]
) -> Iterator[tuple[int, Any]]:
    """(position, result) of each task, as they finish; `waiting` is called every `SECONDS` until they have.

    Raises:
        UsageError: a task cannot be sent to a process.
        RuntimeFailure: a process died.
    """
    for task in tasks:
        try:
            ForkingPickler.dumps(task)
        except Exception as error:  # whatever an object raises that cannot be sent
            raise UsageError(
                f"--jobs {jobs}: {error}; name data and metric as files or module:function, or use --jobs 1"
            ) from error
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context, initializer=_begin)
    try:
        futures = {pool.submit(work, task): position for position, task in enumerate(tasks)}
        pending = set(futures)
        while pending:
            done, pending = wait(pending, SECONDS, FIRST_COMPLETED)
            for future in done:
                yield futures[future], future.result()
            waiting()
    except BrokenProcessPool as error:
        raise RuntimeFailure(
            "a process of the comparison died, perhaps for want of memory; what was finished is kept: lower --jobs and run again"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an error, seeds under way need not be waited for


def _begin() -> None:
    """Set up a worker."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)  # for what a script had loaded already
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
