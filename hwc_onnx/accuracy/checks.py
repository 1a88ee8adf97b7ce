"""Refuse samples that a model would choke on, or worse, that it would swallow.

Each message names the array, what was found, what the model accepts and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.errors import DataError

if TYPE_CHECKING:
    from hwc_onnx.accuracy.inputs import InputSpec


def check_inputs(arrays: Mapping[str, NDArray[np.generic]], specs: Sequence[InputSpec], where: str) -> None:
    """Names, types and shapes against what the model declares; cheap, no values are read.

    Raises:
        DataError: an input is missing, or its type, rank or a static size differs.
    """
    for spec in specs:
        if spec.name not in arrays:
            raise DataError(
                f"{where}: no array for the model's input '{spec.name}' (found {', '.join(sorted(arrays)) or 'none'}); "
                f"the model reads {', '.join(_describe(other) for other in specs)}; name the arrays like the inputs"
            )
    wrong = []
    for spec in specs:
        array = arrays[spec.name]
        if array.dtype != spec.dtype:
            raise DataError(
                f"{where}: array '{spec.name}' is {array.dtype}, the model's input is {spec.dtype}; convert the array"
            )
        sizes_fit = all(
            want is None or want == have for want, have in zip(spec.shape[1:], array.shape[1:], strict=False)
        )
        if array.ndim != len(spec.shape) or not sizes_fit:
            wrong.append(
                f"array '{spec.name}' has shape [N, {', '.join(map(str, array.shape[1:]))}], the model's input is {_describe(spec)}"
            )
    if wrong:
        raise DataError(f"{where}: {'; '.join(wrong)}; bring the samples to that shape (layout, size, channels)")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{where}: arrays have different numbers of samples ({counts}); each needs one row per sample")


def check_finite(arrays: Mapping[str, NDArray[np.generic]], where: str) -> None:
    """No NaN and no infinity.

    Raises:
        DataError: names the array, the first bad sample and how many there are.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise DataError(
                f"{where}: array '{name}' has NaN or infinity in {int(bad.sum())} of {len(array)} samples (first: sample "
                f"{int(bad.argmax())}); every value must be finite; drop or repair these samples"
            )


def _describe(spec: InputSpec) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in spec.shape[1:])
    return f"'{spec.name}' {spec.dtype} [N{', ' if sizes else ''}{sizes}]"


def check_labels(labels: NDArray[np.generic], samples: int, classes: int | None, where: str) -> None:
    """Labels against the number of samples and of classes (None: targets that are not classes).

    Raises:
        DataError: a wrong number, a type that is not whole numbers, or a label outside 0..classes-1.
    """
    if len(labels) != samples:
        raise DataError(f"{where}: {len(labels)} labels for {samples} samples; each sample needs one")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(f"{where}: labels contain NaN or infinity; every target must be finite")
    if classes is None:
        return
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {labels.dtype}, the metric compares classes; give whole numbers 0..{classes - 1}"
        )
    if labels.ndim != 1:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        hint = "they seem to start at 1: subtract 1" if low >= 1 and high == classes else "give the right labels"
        raise DataError(
            f"{where}: labels go from {low} to {high}, the model has {classes} classes (0..{classes - 1}); {hint}"
        )
