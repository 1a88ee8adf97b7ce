"""Fewer samples, where memory would not hold what all of them need."""

from __future__ import annotations

import numpy as np

from hwc_onnx.accuracy.splits import stratified_order
from hwc_onnx.accuracy.types import Samples

FEWEST_MEASURED = 16
"""No measurement is made on fewer samples for want of memory."""


def fewer(samples: Samples, count: int) -> Samples:
    """`count` of the samples in their order: a random draw with classes in proportion, the same one each time."""
    if count >= len(samples):
        return samples
    order = stratified_order(samples.labels, len(samples), np.random.default_rng(0xFE3E))
    return samples.take(np.sort(order[:count]))


def fitting(samples: Samples, each: int, limit: int, what: str) -> tuple[Samples, str]:
    """As many samples as take at most `limit` bytes at `each` bytes, and a note that says so (empty where all fit).

    Args:
        samples: all of them.
        each: bytes that one sample needs.
        limit: bytes that may be used.
        what: what takes the memory, in plural.
    """
    count = max(limit // max(each, 1), FEWEST_MEASURED)
    if count >= len(samples):
        return samples, ""
    return fewer(samples, count), (
        f"memory: {count} of {len(samples)} samples are measured, since {what} of all take {size(len(samples) * each)} and at most "
        f"{size(limit)} are kept"
    )


def size(count: int) -> str:
    """A number of bytes for people."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"
