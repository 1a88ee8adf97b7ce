"""Samples in a NumPy .npz or .npy file: arrays named as the model's inputs, or `x`; labels `y`; a holdout; mean and std."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.arrays import content_digest, has_pixels, pool_of_arrays, suspicious_range
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.npz_file import read_npy, read_npz
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import Preprocess
from hwc_onnx.errors import DataError

Contents = dict[str, NDArray[np.generic]]

UNNAMED = "arr_0"
"""What np.savez calls an array that was given without a name."""
LOOKED_AT = 64
"""Samples that are looked at for being all the same."""


def load_npz(path: Path, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None) -> Data:
    """Read a file.

    Arrays: one per model input under its name (`x`, or the only unnamed one, when there is one input), `<name>_holdout` for a separate holdout,
    `y` and `y_holdout` for labels, `mean` and `std` (0..1 units, one entry or one per channel) for uint8 images.
    Nothing is unpickled.

    Raises:
        DataError: not an .npz, pickled objects inside, more than `npz_file.LIMIT_BYTES` of arrays, or arrays that do
            not fit the model.
    """
    return data_of_arrays(read_npz(path), specs, preset, stored, str(path))


def load_npy(path: Path, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None) -> Data:
    """Read the samples of a model with one input from a single array, without labels.

    Raises:
        DataError: not an .npy, pickled objects inside, a model with several inputs, or an array that does not fit it.
    """
    if len(specs) != 1:
        raise DataError(
            f"{path}: a single array, and the model has {len(specs)} inputs ({', '.join(spec.name for spec in specs)}); save "
            "one array for each with np.savez"
        )
    return data_of_arrays({specs[0].name: read_npy(path)}, specs, preset, stored, str(path))


def data_of_arrays(
    contents: Contents, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None, where: str
) -> Data:
    """The same rules for arrays already in memory; see `load_npz`."""
    names = {spec.name for spec in specs}
    arrays = _inputs(contents, specs, "")
    holdout = _inputs(contents, specs, "_holdout")
    own = _own_preprocess({key: value for key, value in contents.items() if key not in names}, where)
    preprocess, notes = _choose(preset, own, stored, has_pixels(arrays, specs))
    labels = contents.get("y") if "y" not in names else None
    held_labels = contents.get("y_holdout") if "y_holdout" not in names else None
    if holdout and (labels is None) != (held_labels is None):
        raise DataError(f"{where}: only one of y and y_holdout is there; give labels for both parts or for none")
    pool = pool_of_arrays(arrays, labels, specs, preprocess, where)
    held = pool_of_arrays(holdout, held_labels, specs, preprocess, f"{where} (holdout)") if holdout else None
    remarks = (suspicious_range(arrays, specs), _unused(contents, names, labels), _all_alike(arrays))
    notes = (*notes, *(text for text in remarks if text is not None))
    return Data(
        pool=pool,
        holdout=held,
        preprocess=preprocess.to_dict() if preprocess is not None and has_pixels(arrays, specs) else {},
        source=where,
        real=True,
        digest=content_digest([*(contents[key] for key in sorted(contents))]),
        notes=notes,
    )


def _unused(contents: Contents, names: set[str], labels: NDArray[np.generic] | None) -> str | None:
    """A remark on arrays that nothing reads, such as labels under another name."""
    single = {"x" if "x" in contents else UNNAMED} if len(names) == 1 and not names & contents.keys() else set()
    known = {"mean", "std"} | {f"{name}{end}" for name in names | single | {"y"} for end in ("", "_holdout")}
    left = sorted(key for key in contents if key not in known)
    if not left:
        return None
    advice = "" if labels is not None else "; labels are read from an array y"
    return f"array{'s' if left[1:] else ''} not used: {', '.join(left)}{advice}"


def _all_alike(arrays: Contents) -> str | None:
    """A remark where the first samples are all the same: nothing can be measured on them."""
    for array in arrays.values():
        part = array[:LOOKED_AT]
        if len(part) < 2 or (part != part[:1]).any():
            return None
    return f"the first {min(LOOKED_AT, len(next(iter(arrays.values()))))} samples are all the same; ranges and drops say nothing of others"


def _inputs(contents: Contents, specs: Sequence[InputSpec], suffix: str) -> Contents:
    """The arrays for the model's inputs, with `x`, or a single array without a name, standing for the only one."""
    found = {spec.name: contents[spec.name + suffix] for spec in specs if spec.name + suffix in contents}
    if not found and len(specs) == 1 and "x" + suffix in contents:
        found = {specs[0].name: contents["x" + suffix]}
    if not found and len(specs) == 1 and suffix == "" and single_unnamed(contents):
        found = {specs[0].name: contents[UNNAMED]}
    if not found and suffix == "":
        return contents
    return found


def single_unnamed(names: Iterable[str]) -> bool:
    """Whether just one of the arrays has no name, so that it can only be the samples."""
    return [name for name in names if name.startswith("arr_")] == [UNNAMED]


def _own_preprocess(contents: Contents, where: str) -> Preprocess | None:
    """Normalisation by the arrays `mean` and `std`, if they are there."""
    if "mean" not in contents and "std" not in contents:
        return None
    values = {}
    for key in ("mean", "std"):
        array = contents.get(key)
        if array is None:
            raise DataError(f"{where}: mean and std belong together, '{key}' is missing; give both or none")
        if array.dtype.kind not in "fiu" or array.size == 0 or array.size > 4096:
            raise DataError(
                f"{where}: '{key}' is {array.dtype} {list(array.shape)}; give one number per channel, or one"
            )
        values[key] = tuple(float(number) for number in array.ravel())
    return Preprocess(values["mean"], values["std"]).checked(where)


def _choose(
    preset: Preprocess | None, own: Preprocess | None, stored: Preprocess | None, pixels: bool
) -> tuple[Preprocess | None, tuple[str, ...]]:
    """The normalisation to use: asked for, else the data's, else the model file's; and what to tell the user."""
    if not pixels:
        return None, ("the preset is not used: the arrays are already prepared",) if preset is not None else ()
    if preset is not None:
        return preset, ("the preset is used instead of the data's mean and std",) if own is not None else ()
    if own is not None:
        differs = stored is not None and (own.mean, own.std) != (stored.mean, stored.std)
        return own, ("the data's mean and std differ from those stored in the model file",) if differs else ()
    if stored is not None:
        return stored, ("images are normalised as the model file says",)
    return Preprocess(), ("the data has no mean and std: pixels are only divided by 255",)
