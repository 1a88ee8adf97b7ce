"""Arrays in memory as samples: match names, convert types where nothing is lost, normalise images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.checks import check_finite
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.pool import Pool, array_pool
from hwc_onnx.accuracy.presets import Preprocess
from hwc_onnx.errors import DataError

Arrays = Mapping[str, NDArray[np.generic]]


def pool_of_arrays(
    arrays: Arrays,
    labels: NDArray[np.generic] | None,
    specs: Sequence[InputSpec],
    preprocess: Preprocess | None,
    where: str,
) -> Pool:
    """A pool over one array [N, ...] per model input, converted when taken.

    Pixels (uint8) for an input of another float type are normalised by `preprocess` (None: divided by 255 only).
    Float types convert into each other, whole numbers where they fit.

    Raises:
        DataError: an input without array, different lengths, no samples, a type that does not convert, NaN, or a
            number of labels that differs.
    """
    missing = [spec.name for spec in specs if spec.name not in arrays]
    if missing:
        raise DataError(
            f"{where}: no array for the model's input '{missing[0]}' (found {', '.join(sorted(arrays)) or 'none'}); name "
            "arrays like the model's inputs, or x when it has one input"
        )
    used = {spec.name: arrays[spec.name] for spec in specs}
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in used.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{where}: arrays have different numbers of samples ({counts}); each needs one row per sample")
    size = next(iter(counts.values()))
    if size == 0:
        raise DataError(f"{where}: no samples (shape {list(used[specs[0].name].shape)}); give arrays [samples, ...]")
    if labels is not None and labels.dtype.kind not in "iufb":
        raise DataError(f"{where}: labels are {labels.dtype}; give whole numbers from 0 for classes, or numbers for other targets")
    if labels is not None and len(labels) != size:
        raise DataError(f"{where}: {len(labels)} labels for {size} samples; each sample needs one")
    check_finite(used, where)
    for spec in specs:
        _check_type(used[spec.name], spec, where)
    return array_pool(used, labels, specs, _preparer(preprocess or Preprocess(), where), where)


def has_pixels(arrays: Arrays, specs: Sequence[InputSpec]) -> bool:
    """Whether some array holds pixels that need normalising: uint8 for a float input."""
    return any(spec.name in arrays and arrays[spec.name].dtype == np.uint8 and spec.dtype.kind == "f" for spec in specs)


def suspicious_range(arrays: Arrays, specs: Sequence[InputSpec]) -> str | None:
    """A remark when floats look like pixels that nobody normalised."""
    for spec in specs:
        array = arrays.get(spec.name)
        if array is None or array.dtype.kind != "f" or array.ndim != 4:
            continue
        part = array[:256]
        if float(part.min()) >= 0 and float(part.max()) > 64:
            return (
                f"array '{spec.name}' holds floats up to {float(part.max()):g}, like pixels without normalisation: right "
                "only if the model normalises by itself; otherwise give uint8 with mean and std"
            )
    return None


def content_digest(arrays: Sequence[NDArray[np.generic] | None]) -> str:
    """SHA-256 over types, shapes and bytes."""
    hasher = hashlib.sha256()
    for array in arrays:
        if array is None:
            hasher.update(b"none")
            continue
        hasher.update(f"{array.dtype.str}{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def _check_type(array: NDArray[np.generic], spec: InputSpec, where: str) -> None:
    have, want = array.dtype, spec.dtype
    if have == want or (have.kind == "f" and want.kind == "f") or (have == np.uint8 and want.kind == "f"):
        return
    if have.kind in "iu" and want.kind in "iu":
        limits = np.iinfo(want)
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        if limits.min <= low and high <= limits.max:
            return
        raise DataError(
            f"{where}: array '{spec.name}' has values {low} to {high}, the model's input is {want} ({limits.min} to "
            f"{limits.max}); bring them into that range"
        )
    raise DataError(
        f"{where}: array '{spec.name}' is {have}, the model's input is {want}; convert it (uint8 images and other float "
        "types are converted for float inputs, whole numbers for whole-number inputs)"
    )


def _preparer(preprocess: Preprocess, where: str) -> Callable[[NDArray[np.generic], InputSpec], NDArray[np.generic]]:
    def prepare(part: NDArray[np.generic], spec: InputSpec) -> NDArray[np.generic]:
        if part.dtype == np.uint8 and spec.dtype.kind == "f":
            return preprocess.apply(part.astype(np.uint8, copy=False), spec, where)
        return part.astype(spec.dtype, copy=False)

    return prepare
