"""Samples from Python: a function that yields (inputs, labels), ONNX Runtime's calibration reader, or arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.npz import data_of_arrays
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import Preprocess
from hwc_onnx.errors import DataError
from hwc_onnx.plugins import resolve

MOST_SAMPLES = 1 << 15
"""An endless generator is read up to here."""


def load_function(name: str, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None) -> Data:
    """Call `module:function` and collect what it yields.

    Each item is (inputs, labels): inputs an array, or a dictionary of arrays by input name; labels an array, a number or
    None. Items may be single samples or batches (one axis more). A function may also return such a pair of whole arrays.

    Raises:
        UsageError: the name does not lead to anything.
        DataError: it fails, or yields something else.
    """
    target = resolve("data source", name, {})
    try:
        produced = target() if callable(target) else target
        items = [produced] if isinstance(produced, tuple) else _items(produced, name)
        arrays, labels = _gather(items, specs, name)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{name}: failed with {type(error).__name__}: {error}; it must yield (inputs, labels)"
        ) from error
    return data_of_arrays(arrays | ({} if labels is None else {"y": labels}), specs, preset, stored, name)


def load_reader(reader: Any, specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None) -> Data:
    """Collect an `onnxruntime.quantization.CalibrationDataReader`: `get_next()` gives a feed until it gives None."""

    def feeds() -> Iterator[tuple[Any, None]]:
        while (feed := reader.get_next()) is not None:
            yield feed, None

    where = type(reader).__name__
    arrays, _ = _gather(feeds(), specs, where)
    return data_of_arrays(arrays, specs, preset, stored, where)


def load_arrays(
    arrays: Mapping[str, Any], specs: Sequence[InputSpec], preset: Preprocess | None, stored: Preprocess | None
) -> Data:
    """Arrays by name, with the names that an .npz file would have."""
    contents = {str(name): np.asarray(array) for name, array in arrays.items()}
    objects = [name for name, array in contents.items() if array.dtype.kind not in "biufc"]
    if objects:
        raise DataError(f"data: '{objects[0]}' is {contents[objects[0]].dtype}; give numeric arrays")
    return data_of_arrays(contents, specs, preset, stored, "arrays")


def _items(produced: Any, where: str) -> Iterable[Any]:
    if not isinstance(produced, Iterable):
        raise DataError(f"{where}: gave a {type(produced).__name__}; it must yield (inputs, labels)")
    return produced


def _gather(
    items: Iterable[Any], specs: Sequence[InputSpec], where: str
) -> tuple[dict[str, NDArray[np.generic]], NDArray[np.generic] | None]:
    """Concatenate (inputs, labels) items into arrays [N, ...] and labels [N, ...] or None."""
    inputs: dict[str, list[NDArray[Any]]] = {spec.name: [] for spec in specs}
    labels: list[NDArray[Any]] = []
    count = 0
    for item in items:
        if not isinstance(item, tuple) or len(item) != 2:
            raise DataError(f"{where}: yielded a {type(item).__name__}; each item must be a pair (inputs, labels)")
        feed, label = item
        by_name = feed if isinstance(feed, Mapping) else {specs[0].name: feed}
        batched = 1
        for spec in specs:
            if spec.name not in by_name:
                raise DataError(f"{where}: an item has no '{spec.name}' (it has {', '.join(map(str, by_name))}); name each input of the model")
            array = np.asarray(by_name[spec.name])
            single = array.ndim == len(spec.shape) - 1
            batched = 1 if single else len(array)
            inputs[spec.name].append(array[None] if single else array)
        if label is not None:
            given = np.asarray(label)
            labels.append(given[None] if given.ndim == 0 or len(given) != batched else given)
        count += batched
        if count >= MOST_SAMPLES:
            break
    if count == 0:
        raise DataError(f"{where}: yielded nothing; it must yield (inputs, labels)")
    if labels and sum(map(len, labels)) != count:
        raise DataError(f"{where}: {sum(map(len, labels))} labels for {count} samples; label all of them or none")
    try:
        arrays = {name: np.concatenate(parts) for name, parts in inputs.items()}
        return arrays, np.concatenate(labels) if labels else None
    except ValueError as error:
        raise DataError(f"{where}: items have different shapes ({error}); every sample needs the same") from error
