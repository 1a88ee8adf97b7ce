"""Sizes that a model leaves open, taken from the arrays that it will be fed with."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hwc_onnx.accuracy.npz import UNNAMED, single_unnamed
from hwc_onnx.accuracy.types import Samples

Shapes = Mapping[str, Sequence[int]]


def shapes_from_data(model: str | Path | onnx.ModelProto, data: Any, given: Shapes | None) -> Shapes | None:
    """`given`, or the shape (batch 1) that the arrays in `data` have for each input with an open size.

    Args:
        model: a ModelProto or the path of one; a file that cannot be read is left for the loader to refuse.
        data: a path of an .npz file, `Samples` or arrays by name; other sources have no size of their own.
        given: what the user says, which counts more.
    """
    found = _array_shapes(data) if not given else {}
    if not found:
        return given
    try:
        proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
    except Exception:  # the loader says what is wrong with the file
        return given
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    settled = {}
    for value in inputs:
        # as everywhere, the array of a single input may be called x, or have no name
        alone = found.get("x", found.get(UNNAMED) if single_unnamed(found) else None)
        shape = found.get(value.name, alone if len(inputs) == 1 else None)
        dims = value.type.tensor_type.shape.dim
        if shape is not None and len(shape) == len(dims) > 1 and any(dim.dim_value <= 0 for dim in dims[1:]):
            settled[value.name] = (dims[0].dim_value if dims[0].dim_value > 0 else 1, *shape[1:])
        elif shape is not None and len(shape) == len(dims) + 1 and any(dim.dim_value <= 0 for dim in dims):
            settled[value.name] = tuple(shape[1:])
    return settled or given


def _array_shapes(data: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by array name; of an .npz file the headers are read, not the arrays."""
    if isinstance(data, Samples):
        data = data.inputs
    if isinstance(data, Mapping):
        return {name: np.shape(array) for name, array in data.items()}
    if not isinstance(data, str | Path) or Path(data).suffix != ".npz":
        return {}
    shapes = {}
    try:
        with zipfile.ZipFile(data) as archive:
            for member in archive.namelist():
                with archive.open(member) as stream:
                    read = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }[np.lib.format.read_magic(stream)]
                    shapes[member.removesuffix(".npy")] = read(stream)[0]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}  # the reader of the data says what is wrong with them
    return shapes
