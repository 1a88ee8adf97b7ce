"""Load samples from whatever `--data` names.

One table maps a kind of source to the function that reads it; the kind is recognised from the name: `synthetic`, a
folder, a file, or `module:function`. Python callers may pass arrays, samples, or a calibration reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from hwc_onnx.accuracy.binary_sets import find_binary_set
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import Preprocess, parse_preset
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from hwc_onnx.graph.compared import PASSING, compared_values
from hwc_onnx.plugins import resolve

DATASETS: Mapping[str, str] = {
    "npz": "hwc_onnx.accuracy.npz:load_npz",
    "npy": "hwc_onnx.accuracy.npz:load_npy",
    "binary": "hwc_onnx.accuracy.binary_sets:load_binary_set",
    "folder": "hwc_onnx.accuracy.image_folder:load_image_folder",
    "function": "hwc_onnx.accuracy.python_source:load_function",
    "reader": "hwc_onnx.accuracy.python_source:load_reader",
    "arrays": "hwc_onnx.accuracy.python_source:load_arrays",
}
"""Kind of source -> a function of (source, specs, preset, stored preprocessing) that returns `Data`."""

_ALLOWED = "an .npz or .npy file, an image folder, CIFAR or IDX files, module:function, or synthetic"


def load_data(
    source: Any,
    specs: Sequence[InputSpec],
    *,
    preset: str | None = None,
    stored: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    model: onnx.ModelProto | None = None,
) -> Data:
    """Open a source; most of it is read only when splits take samples.

    Args:
        source: a path, "synthetic" or "synthetic:COUNT", "module:function", a mapping of arrays, `Samples`, or an object
            with `get_next()`. None means synthetic.
        specs: the model's inputs (`inputs.input_specs`).
        preset: how images are normalised, see `presets.parse_preset`.
        stored: the preprocessing that the model file records.
        input_shapes: sizes for inputs that the model leaves open.
        seed: of synthetic samples.
        model: the model in normal form: synthetic whole numbers learn the tables that they index from it, and images how they
            are normalised.

    Raises:
        DataError: the source is missing, unreadable, or does not fit the model.
        UsageError: an unknown preset or function.
    """
    if not specs:
        raise DataError("the model has no inputs, so there is nothing to feed; check that it was exported with inputs")
    wanted = [_with_shape(spec, input_shapes or {}) for spec in specs]
    asked = parse_preset(preset) if preset is not None else None
    recorded = Preprocess.from_dict(stored, "preprocessing in the model file") if stored else None
    if source is None or (isinstance(source, str) and source.partition(":")[0] == "synthetic"):
        from hwc_onnx.accuracy.synthetic import load_synthetic

        limits = index_limits(model) if model is not None else {}
        tested = compared_values(model) if model is not None else {}
        return load_synthetic(
            wanted, asked, recorded, seed=seed, count=_count(source), index_limits=limits, tested=tested, model=model
        )
    kind, target = _recognise(source)
    loaded: Data = resolve("data source", kind, DATASETS)(target, wanted, asked, recorded)
    return loaded


def index_limits(model: onnx.ModelProto) -> dict[str, int]:
    """Rows of the tables that whole-number inputs index through Gather, by input name (the smallest where several)."""
    rows = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    origin = {value.name: value.name for value in model.graph.input}
    limits: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in PASSING and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type == "Gather" and node.input[0] in rows and node.input[1] in origin:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            name = origin[node.input[1]]
            limits[name] = min(limits.get(name, 1 << 62), rows[node.input[0]][axis])
    return limits


def _recognise(source: Any) -> tuple[str, Any]:
    """(kind, what its loader takes) of a source."""
    if isinstance(source, Samples):
        labels = {} if source.labels is None else {"y": source.labels}
        return "arrays", dict(source.inputs) | labels
    if isinstance(source, Mapping):
        return "arrays", source
    if hasattr(source, "get_next"):
        return "reader", source
    if not isinstance(source, str | Path):
        raise DataError(
            f"data: a {type(source).__name__}; give {_ALLOWED}, arrays by input name, or a calibration reader"
        )
    path = Path(source)
    if path.is_dir():
        found = find_binary_set(path)
        return ("folder", path) if found is None else ("binary", found)
    if path.is_file():
        found = find_binary_set(path)
        if found is not None:
            return "binary", found
        if path.suffix in (".npz", ".npy"):
            return path.suffix[1:], path
        raise DataError(f"{path}: '{path.suffix or path.name}' is not a known kind of data file; give {_ALLOWED}")
    text = str(source)
    if ":" in text and path.suffix not in (".npz", ".npy"):
        return "function", text
    raise DataError(f"{path}: no such file or folder; give {_ALLOWED}")


def _with_shape(spec: InputSpec, shapes: Mapping[str, Sequence[int]]) -> InputSpec:
    """Open sizes filled in from `--input-shape`; the batch stays as the model declares it."""
    given = shapes.get(spec.name)
    if given is None:
        return spec
    given = (1, *given) if spec.whole else given
    if len(given) != len(spec.shape):
        raise DataError(
            f"--input-shape {spec.name}:{'x'.join(map(str, given))}: the input has {len(spec.shape)} axes; give as many sizes"
        )
    return replace(spec, shape=(spec.shape[0], *(int(size) for size in given[1:])))


def _count(source: Any) -> int | None:
    """The number in "synthetic:2048"."""
    text = "" if source is None else str(source).partition(":")[2]
    if not text:
        return None
    if not text.isdigit() or int(text) == 0:
        raise DataError(f"{source}: '{text}' is not a number of samples; write for example synthetic:2048")
    return int(text)
