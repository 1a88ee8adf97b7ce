"""Divide samples into calibration, search and holdout: disjoint, and the same for every search seed.

Samples are put in a random order in which every prefix has the classes in proportion; consecutive ranges of it are the
splits. So each split, and the first 256 images of the search split, are stratified where labels exist.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.pool import Data, Pool
from hwc_onnx.accuracy.types import Splits
from hwc_onnx.errors import DataError

MINIMUM = 64
CALIBRATION_SHARE, MOST_CALIBRATION = 0.25, 1024
MOST_SEARCH = 4096
HOLDOUT_SHARE, MOST_HOLDOUT = 0.30, 10_000
SPLIT_BYTES = 8 << 30
"""The prepared inputs of one split take at most this, in temporary files where they are large; beyond it samples are left out
(but not below `MINIMUM`)."""


def make_splits(data: Data, seed: int = 0, calibration: int | None = None, search: int | None = None) -> Splits:
    """Split a source.

    Calibration takes a quarter of the samples, at most 1,024; holdout is the source's own, else 30% (at most 10,000);
    search takes the rest, at most 4,096.

    Args:
        data: the loaded source.
        seed: decides which samples go where (`--split-seed`); independent of the search's seed.
        calibration: another size for the calibration split.
        search: another largest size for the search split.

    Raises:
        DataError: a split would have fewer than 64 samples.
    """
    total = len(data.pool)
    own = data.holdout is not None
    sizes = split_sizes(data, calibration, search)
    held, fitting, searched = 0 if own else sizes["holdout"], sizes["calibration"], sizes["search"]
    order = stratified_order(data.pool.labels, total, np.random.default_rng([seed, 0x5B117]))
    held_part, fit_part = order[:held], order[held : held + fitting]
    search_part = order[held + fitting : held + fitting + searched]
    kept = {"calibration": _within_memory(data.pool, fit_part), "search": _within_memory(data.pool, search_part)}
    if data.holdout is None:
        kept["holdout"] = _within_memory(data.pool, held_part)
    else:
        mixed = stratified_order(data.holdout.labels, len(data.holdout), np.random.default_rng([seed, 0x401D]))
        kept["holdout"] = np.sort(_within_memory(data.holdout, mixed))
    notes = tuple(
        f"memory: {len(kept[name])} of {size} {name} samples are used, since the inputs of one split take at most "
        f"{SPLIT_BYTES / 2**30:.3g} GiB"
        for name, size in sizes.items()
        if len(kept[name]) < size
    )
    return Splits(
        calibration=data.pool.samples(kept["calibration"]),
        search=data.pool.samples(kept["search"]),
        holdout=(data.holdout or data.pool).samples(kept["holdout"]),
        real=data.real,
        description=(
            f"{data.source}: {len(kept['calibration'])} calibration, {len(kept['search'])} search, {len(kept['holdout'])} holdout "
            f"samples ({'its own holdout' if own else 'holdout split off'}, split seed {seed})"
        ),
        digest=_digest(data.digest, kept["calibration"], kept["search"], held_part[:0] if own else kept["holdout"]),
        calibration_digest=_digest(data.digest, kept["calibration"]),
        notes=notes,
    )


def split_sizes(data: Data, calibration: int | None = None, search: int | None = None) -> dict[str, int]:
    """How many samples each split gets (see `make_splits`).

    Raises:
        DataError: a split would have fewer than 64 samples.
    """
    total = len(data.pool)
    held = len(data.holdout) if data.holdout is not None else _held(total)
    fitting = min(MOST_CALIBRATION, int(total * CALIBRATION_SHARE)) if calibration is None else calibration
    left = total - fitting - (0 if data.holdout is not None else held)
    sizes = {"calibration": fitting, "search": min(MOST_SEARCH if search is None else search, left), "holdout": held}
    for name, size in sizes.items():
        if size < MINIMUM:
            found = f"{data.source}: {total} samples leave {max(size, 0)} for the {name} split"
            if data.holdout is not None and name == "holdout":
                found = f"{data.source}: {held} samples are there for the holdout split"
            asked = {"calibration": calibration, "search": search}.get(name)
            if asked is not None and asked < MINIMUM:
                advice = f"give --{name}-samples {MINIMUM} or more"
            else:
                smaller = calibration is not None and calibration > MINIMUM
                advice = _enough(data.holdout is not None, calibration) + (", or fewer --calibration-samples" if smaller else "")
            raise DataError(f"{found}, each split needs at least {MINIMUM}; {advice}")
    return sizes


def _enough(own_holdout: bool, calibration: int | None) -> str:
    """How many samples all splits need together, so that they are not found wanting one after the other."""
    total = math.ceil(MINIMUM / CALIBRATION_SHARE) if calibration is None else max(calibration, MINIMUM) + MINIMUM
    if own_holdout:
        return f"give {total} samples or more, and {MINIMUM} or more for the holdout"

    def left(total: int) -> int:
        return total - _held(total) - (calibration if calibration is not None else int(total * CALIBRATION_SHARE))

    while _held(total) < MINIMUM or left(total) < MINIMUM:
        total += 1
    return f"give {total} samples or more"


def _within_memory(pool: Pool, part: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many of the first positions in `part` as `SPLIT_BYTES` hold."""
    each = sum(array.nbytes for array in pool.samples(part[:1]).inputs.values())
    return part[: max(SPLIT_BYTES // max(each, 1), MINIMUM)]


def calibration_size(data: Data, wanted: int) -> int | None:
    """`wanted` where every split can still have its fewest samples, else None: the usual share."""
    held = 0 if data.holdout is not None else _held(len(data.pool))
    return wanted if MINIMUM <= wanted <= len(data.pool) - held - MINIMUM else None


def _held(total: int) -> int:
    return min(MOST_HOLDOUT, int(total * HOLDOUT_SHARE))


def stratified_order(labels: NDArray[np.generic] | None, total: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order of `total` samples in which each class is spread evenly; without class labels just random."""
    order = rng.permutation(total)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return order.astype(np.int64)
    position = np.empty(total)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        # evenly spaced places with a random offset per class, so that small classes do not all come first
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return order[np.argsort(position[order], kind="stable")].astype(np.int64)


def _digest(source: str, *parts: NDArray[np.int64]) -> str:
    hasher = hashlib.sha256(source.encode())
    for part in parts:
        hasher.update(b"|")
        hasher.update(part.astype("<i8").tobytes())
    return hasher.hexdigest()
