"""Inputs made up when the user has none: images with the statistics of natural ones, and typed values for the rest.

White noise excites a network as no photograph does: neighbouring pixels of a photograph agree, its spectrum falls as
1/f, and it is made of objects that hide each other. Two families have these properties without any data: noise with a
falling spectrum, and "dead leaves", random shapes painted over each other with sizes of a power law.

Source: Field, J. Opt. Soc. Am. A 4 (1987), 2379-2394 (spectrum); Lee, Mumford and Huang, Int. J. Computer Vision 41
(2001), 35-59 (dead leaves); Baradad et al., NeurIPS 2021 (both as training images for networks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.arrays import content_digest, pool_of_arrays
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import Preprocess
from hwc_onnx.errors import DataError

F32 = NDArray[np.float32]
SMALL_COUNT, LARGE_COUNT = 2048, 1024
_SMALL_ELEMENTS = 3 * 64 * 64
_BLOCK = 32
_CENTRED = Preprocess((0.5,), (0.25,))
"""Values -2..2, about what normalised photographs span."""


def load_synthetic(
    specs: Sequence[InputSpec],
    preset: Preprocess | None,
    stored: Preprocess | None,
    *,
    seed: int = 0,
    count: int | None = None,
    index_limits: Mapping[str, int] | None = None,
    tested: Mapping[str, NDArray[Any]] | None = None,
) -> Data:
    """Made-up samples without labels.

    Args:
        specs: the model's inputs, with static sizes except the batch.
        preset: how images are normalised; None: the model file's way, else to values of about -2..2.
        stored: what the model file says.
        seed: the same seed gives the same samples.
        count: number of samples; None: 2,048 small ones or 1,024 large ones.
        index_limits: rows of the table that a whole-number input indexes, by input name.
        tested: what the model tests an input for (`graph/compared.py`), which it then is in every sample.

    Raises:
        DataError: a size other than the batch is open, or a type that cannot be made up.
    """
    for spec in specs:
        if None in spec.shape[1:]:
            raise DataError(
                f"synthetic data: input '{spec.name}' {[size or '?' for size in spec.shape]} has open sizes; give "
                f"--input-shape {spec.name}:1x3x224x224 (with the right sizes), or real data"
            )
    elements = sum(int(np.prod([size or 1 for size in spec.shape[1:]])) for spec in specs)
    total = count or (SMALL_COUNT if elements <= _SMALL_ELEMENTS else LARGE_COUNT)
    rng = np.random.default_rng([seed, 0x5E7])
    preprocess = preset or stored or _CENTRED
    length = min((spec.shape[1] or 1 for spec in specs if len(spec.shape) > 1), default=1)
    arrays = {spec.name: _values(spec, total, rng, (index_limits or {}).get(spec.name), length) for spec in specs}
    for name, value in (tested or {}).items():
        arrays[name] = np.full_like(arrays[name], value)
    pixels = any(array.dtype == np.uint8 and specs[i].dtype.kind == "f" for i, array in enumerate(arrays.values()))
    pool = pool_of_arrays(arrays, None, specs, preprocess, "synthetic data")
    settings = preprocess.to_dict() if pixels and (preset or stored) else {}
    digest = content_digest([*arrays.values()])
    return Data(pool, None, settings, "synthetic", False, digest)


def images(count: int, channels: int, rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pixels [count, channels, rows, columns]: half noise with a falling spectrum, half dead leaves, in random order."""
    made = np.empty((count, channels, rows, columns), np.uint8)
    kinds = rng.permutation(count) % 2
    noisy = np.flatnonzero(kinds == 0)
    for start in range(0, len(noisy), _BLOCK):
        part = noisy[start : start + _BLOCK]
        made[part] = _pixels(fractal_noise(len(part), channels, rows, columns, rng))
    textures = fractal_noise(_BLOCK, 1, rows, columns, rng)[:, 0]
    for position in np.flatnonzero(kinds == 1):
        texture = textures[int(rng.integers(_BLOCK))]
        made[position] = _pixels(dead_leaves(channels, rows, columns, rng, texture))
    return made


def fractal_noise(count: int, channels: int, rows: int, columns: int, rng: np.random.Generator) -> F32:
    """Images [count, channels, rows, columns] in 0..1 whose amplitude falls as 1/f^a, a in 0.8..1.6.

    The channels share one field, so that they correlate as the colours of photographs do.
    """
    from scipy.fft import irfft2

    vertical = np.fft.fftfreq(rows)[:, None] * rows
    horizontal = np.fft.rfftfreq(columns)[None, :] * columns
    frequency = np.sqrt(vertical**2 + horizontal**2)
    frequency[0, 0] = np.inf
    slopes = rng.uniform(0.8, 1.6, (count, 1, 1, 1))
    shape = (count, channels, *frequency.shape)
    spectrum = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    spectrum *= (frequency**-slopes).astype(np.float32)
    fields: F32 = np.asarray(irfft2(spectrum, s=(rows, columns), overwrite_x=True), np.float32)
    fields /= _spread(fields)
    mixed = rng.uniform(0.6, 0.95, (count, 1, 1, 1)).astype(np.float32) * fields[:, :1] + np.float32(0.4) * fields
    contrast = rng.uniform(0.08, 0.28, (count, 1, 1, 1)).astype(np.float32)
    centre = rng.uniform(0.3, 0.7, (count, 1, 1, 1)).astype(np.float32)
    return np.clip(centre + contrast / _spread(mixed) * mixed, 0.0, 1.0)


def dead_leaves(channels: int, rows: int, columns: int, rng: np.random.Generator, texture: F32) -> F32:
    """One image [channels, rows, columns] in 0..1: discs and rectangles over each other, as many of size r as r^-3.

    `texture` [rows, columns] is laid faintly over all of it.
    """
    side = min(rows, columns)
    smallest, largest = max(1.0, side / 24), max(2.0, side / 2)
    count = int(rng.integers(30, 80))
    # inverse transform of a density ~ r^-3 between the two sizes
    radii = (smallest**-2 - rng.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    centres = rng.random((count, 2)) * (rows, columns)
    # channels of natural images are strongly correlated: a grey level plus a little colour
    tint = np.float32(0.12) * rng.standard_normal((count + 1, channels), np.float32)
    colours = np.clip(rng.random((count + 1, 1), np.float32) + tint, 0.0, 1.0)
    corners = np.concatenate([centres - radii[:, None], centres + radii[:, None] + 1], axis=1)
    limits = np.clip(corners.astype(np.int64), 0, [rows, columns, rows, columns]).tolist()
    square = (rng.random(count) < 0.5).tolist()
    image = np.empty((channels, rows, columns), np.float32)
    image[:] = colours[count][:, None, None]
    for leaf, (top, left, bottom, right) in enumerate(limits):
        patch = image[:, top:bottom, left:right]
        colour = colours[leaf][:, None, None]
        if square[leaf]:
            patch[:] = colour
            continue
        down = np.arange(top, bottom) - centres[leaf, 0]
        along = np.arange(left, right) - centres[leaf, 1]
        np.copyto(patch, colour, where=(down**2)[:, None] + (along**2)[None, :] <= radii[leaf] ** 2)
    image += np.float32(0.06) * (texture - np.float32(0.5))
    return np.clip(image, 0.0, 1.0)


def _pixels(values: F32) -> NDArray[np.uint8]:
    """Values in 0..1 as 0..255."""
    return np.rint(255 * values).astype(np.uint8)


def _spread(fields: F32) -> F32:
    """Standard deviation of each image, kept above zero."""
    spread: F32 = fields.std(axis=tuple(range(1, fields.ndim)), keepdims=True)
    return np.maximum(spread, np.float32(1e-12))


def _values(spec: InputSpec, count: int, rng: np.random.Generator, limit: int | None, length: int) -> NDArray[Any]:
    """Plausible values [count, ...] of one input; `length` is that of the sequences in the others."""
    shape = (count, *(size or 1 for size in spec.shape[1:]))
    if spec.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if len(shape) == 4 and (spec.dtype.kind == "f" or spec.dtype == np.uint8):
        if shape[1] in (1, 3, 4) or shape[3] not in (1, 3, 4):
            return images(count, shape[1], shape[2], shape[3], rng)
        return np.ascontiguousarray(images(count, shape[3], shape[1], shape[2], rng).transpose(0, 2, 3, 1))
    if spec.dtype.kind in "iu":
        if len(shape) == 1 and "len" in spec.name.lower():
            return np.full(shape, length, spec.dtype)
        return _indices(spec, shape, rng, limit)
    if spec.dtype.kind == "f":
        return _signals(shape, rng).astype(spec.dtype)
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


def _signals(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Unit-variance values; along the longest of two or more axes neighbours agree as in a recorded signal."""
    values = rng.standard_normal(shape)
    if len(shape) < 3:
        return values
    axis = 1 + int(np.argmax(shape[1:]))
    frequency = np.fft.rfftfreq(shape[axis]) * shape[axis]
    frequency[0] = 1.0
    broadcast = [1] * len(shape)
    broadcast[axis] = -1
    shaped = np.fft.irfft(
        np.fft.rfft(values, axis=axis) * (frequency**-0.5).reshape(broadcast), n=shape[axis], axis=axis
    )
    result: NDArray[np.float64] = shaped / max(float(shaped.std()), 1e-12)
    return result
