"""Inputs made up when the user has none: images with the statistics of natural ones, and typed values for the rest.

How images are normalised is the user's preset or what the model file records, else what fits the model's layers
(likely_presets.py). How many samples are made depends on what one costs (sample_budget.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.arrays import content_digest, pool_of_arrays
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.likely_presets import Way, likely_presets, taken_by
from hwc_onnx.accuracy.pool import Data, Pool
from hwc_onnx.accuracy.presets import Preprocess
from hwc_onnx.accuracy.sample_budget import sample_count
from hwc_onnx.accuracy.synthetic_images import images
from hwc_onnx.errors import DataError

LOOKED_AT = 8
"""Samples that are run to find how the model wants its images."""
_BLOCK = 64
EXTREMES = frozenset({"absorb"})
"""Repairs across layers that take the extremes seen for those that there are: behind a Relu a channel loses what it has above
zero, and is cut off where a real sample has less; elsewhere its range is laid tightly around what was seen."""


def served(repairs: Iterable[str], real: bool) -> tuple[str, ...]:
    """Those of the repairs across layers that samples are good for: made-up ones do not show extremes."""
    return tuple(name for name in repairs if real or name not in EXTREMES)


def load_synthetic(
    specs: Sequence[InputSpec],
    preset: Preprocess | None,
    stored: Preprocess | None,
    *,
    seed: int = 0,
    count: int | None = None,
    index_limits: Mapping[str, int] | None = None,
    tested: Mapping[str, NDArray[Any]] | None = None,
    model: onnx.ModelProto | None = None,
) -> Data:
    """Made-up samples without labels.

    Args:
        specs: the model's inputs, with static sizes except the batch.
        preset: how images are normalised; None: the model file's way, else all ways that fit the model's layers.
        stored: what the model file says.
        seed: the same seed gives the same samples.
        count: number of samples; None: as many as `sample_count` says.
        index_limits: rows of the table that a whole-number input indexes, by input name.
        tested: what the model tests an input for (`graph/compared.py`), which it then is in every sample.
        model: the normalised float model.

    Raises:
        DataError: a size other than the batch is open, or a type that cannot be made up.
    """
    for spec in specs:
        if None in spec.shape[1:]:
            raise DataError(
                f"synthetic data: input '{spec.name}' {[size or '?' for size in spec.shape]} has open sizes; give "
                f"--input-shape {spec.name}:{'x'.join(str(size or '?') for size in (spec.shape[0] or 1, *spec.shape[1:]))} with a size for "
                "each ?, or real data"
            )
    total, reason = (count, "") if count else sample_count(specs, model)
    rng = np.random.default_rng([seed, 0x5E7])
    length = min((spec.shape[1] or 1 for spec in specs if len(spec.shape) > 1), default=1)
    arrays = {spec.name: _values(spec, total, rng, (index_limits or {}).get(spec.name), length) for spec in specs}
    for name, value in (tested or {}).items():
        arrays[name] = np.full_like(arrays[name], value)
    pixels = [spec for spec in specs if arrays[spec.name].dtype == np.uint8 and spec.dtype.kind == "f"]
    known = preset or stored
    pool, notes = pool_of_arrays(arrays, None, specs, known, "synthetic data"), (reason,) if reason else ()
    if pixels and known is None:
        some = {name: array[:LOOKED_AT] for name, array in arrays.items()}
        found = {spec.name: likely_presets(model, specs, some, spec.name) for spec in pixels}
        pool = _mixed(pool, arrays, found)
        notes = (*notes, *(_guess(name, ways) for name, ways in found.items()))
    settings = known.to_dict() if pixels and known else {}
    unit = "images" if all(_is_image(spec) for spec in specs) else "samples"
    return Data(pool, None, settings, "synthetic", False, content_digest([*arrays.values()]), notes, unit)


def _mixed(pool: Pool, arrays: Mapping[str, NDArray[Any]], found: Mapping[str, tuple[Way, ...]]) -> Pool:
    """The pool with the images of some inputs normalised in several ways, each for its share of them."""
    specs = {spec.name: spec for spec in pool.specs}

    def fetch(index: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        made = pool.fetch(index)
        for name, ways in found.items():
            rows, spec, taken = arrays[name][index], specs[name], taken_by(ways, index)
            values = np.empty(rows.shape, spec.dtype)
            for place, way in enumerate(ways):
                values[taken == place] = way.preset.apply(rows[taken == place], spec, pool.where)
            made[name] = values
        return made

    return Pool(pool.size, None, fetch, pool.specs, pool.where)


def _guess(name: str, ways: tuple[Way, ...]) -> str:
    return (
        f"nothing says how images for '{name}' are normalised; its layers suggest {' or '.join(way.option for way in ways)}: say "
        "which with --preset"
    )


def _is_image(spec: InputSpec) -> bool:
    return not spec.whole and len(spec.shape) == 4 and (spec.dtype.kind == "f" or spec.dtype == np.uint8)


def _values(spec: InputSpec, count: int, rng: np.random.Generator, limit: int | None, length: int) -> NDArray[Any]:
    """Plausible values [count, ...] of one input; `length` is that of the sequences in the others."""
    shape = (count, *(size or 1 for size in spec.shape[1:]))
    if spec.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if _is_image(spec):
        if shape[1] in (1, 3, 4) or shape[3] not in (1, 3, 4):
            return images(count, shape[1], shape[2], shape[3], rng)
        return np.ascontiguousarray(images(count, shape[3], shape[1], shape[2], rng).transpose(0, 2, 3, 1))
    if spec.dtype.kind in "iu":
        if len(shape) == 1 and "len" in spec.name.lower():
            return np.full(shape, length, spec.dtype)
        return _indices(spec, shape, rng, limit)
    if spec.dtype.kind == "f":
        return _signals(shape, rng, spec.dtype)
    raise DataError(
        f"synthetic data: input '{spec.name}' has type {spec.dtype}, which cannot be made up; give real data"
    )


def _indices(spec: InputSpec, shape: tuple[int, ...], rng: np.random.Generator, limit: int | None) -> NDArray[Any]:
    """Whole numbers within the indexed table and the declared type; masks are all ones, segment numbers zeros."""
    name = spec.name.lower()
    if "mask" in name:
        return np.ones(shape, spec.dtype)
    if "type" in name or "segment" in name:
        return np.zeros(shape, spec.dtype)
    highest = min(limit if limit is not None else 256, int(np.iinfo(spec.dtype).max) + 1)
    return rng.integers(0, highest, shape).astype(spec.dtype)


def _signals(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of about unit variance; along the longest of two or more axes neighbours agree as in a recorded signal."""
    made = np.empty(shape, dtype)
    axis = 1 + int(np.argmax(shape[1:])) if len(shape) >= 3 else 0
    size = shape[axis]
    if len(shape) >= 3:
        frequency = np.fft.rfftfreq(size) * size
        frequency[0] = 1.0
        weights = (frequency**-0.5).reshape([-1 if place == axis else 1 for place in range(len(shape))])
        # the two halves of the spectrum mirror each other, except for the first entry and, of an even length, the last
        power = 2 * float((weights**2).sum()) - 1.0 - (float(frequency[-1] ** -1) if size % 2 == 0 else 0.0)
        weights /= max((power / size) ** 0.5, 1e-12)
    for start in range(0, shape[0], _BLOCK):
        values = rng.standard_normal((min(_BLOCK, shape[0] - start), *shape[1:]))
        if len(shape) >= 3:
            values = np.fft.irfft(np.fft.rfft(values, axis=axis) * weights, n=size, axis=axis)
        made[start : start + len(values)] = values
    return made
