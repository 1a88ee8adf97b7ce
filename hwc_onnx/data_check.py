"""Look at data as a model sees it, before anything long: values, labels, the float accuracy, and which preset fits best.

Wrong normalisation is the commonest reason for a model that scores little. Where samples are pixels, every preset is tried on the
same samples; a preset is said to score better only where it is not at chance itself and the paired difference is above zero, with 95 % confidence over
all presets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.choose import check_declared
from hwc_onnx.accuracy.data_shapes import shapes_from_data
from hwc_onnx.accuracy.inputs import InputSpec
from hwc_onnx.accuracy.metrics import Metric
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.presets import PRESETS
from hwc_onnx.accuracy.reference import Reference, make_reference
from hwc_onnx.accuracy.runner import Session, open_session
from hwc_onnx.accuracy.sanity import LabelNumbering, LabelOrder, check_reference
from hwc_onnx.accuracy.splits import split_sizes, stratified_order
from hwc_onnx.accuracy.statistics import drop_bounds, is_binary, mean_bounds, wilson_interval
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, ModelError, UsageError
from hwc_onnx.workspace import InputShapes, Model, Opened, load_samples, open_model

SCHEMA = 1
MOST_CHANNELS = 16
MOST_LABELS = 1000
ERROR = 0.05
"""Chance that any of the presets is called better though none is."""
SHEET = 64
"""Samples on a contact sheet."""


@dataclass(frozen=True)
class DataCheck:
    """What was found: `payload` is the content of `data check --json`; `samples` are the first ones as the model sees them."""

    payload: dict[str, Any]
    samples: Samples

    @property
    def error(self) -> str | None:
        """Why the data is not fit for a search, None where nothing speaks against it."""
        text: str | None = self.payload["error"]
        return text


@dataclass(frozen=True)
class _Score:
    """A metric's value with a 95 % interval, and the values of each sample behind it (empty: not per sample)."""

    value: float
    ci95: tuple[float, float]
    units: NDArray[np.float64]


def check_data(
    model: Model,
    data: Any,
    *,
    metric: Any = None,
    task: str | None = None,
    preset: str | None = None,
    input_shapes: InputShapes = None,
    samples: int = 2048,
    seed: int = 0,
) -> DataCheck:
    """Look at up to `samples` samples, each class in proportion, and measure the float model on them.

    Raises:
        HwcError: the data or model cannot be read, or they do not fit. A score at chance is no exception but `DataCheck.error`.
    """
    if data is None:
        open_model(model, input_shapes)  # is it a model at all, or the samples in its place?
        raise DataError("data check: no samples; give them with --data")
    shapes = shapes_from_data(model, data, input_shapes)
    opened = open_model(model, shapes)
    loaded = _load(opened, data, preset, shapes, seed)
    check_declared(opened.loaded.proto, loaded, metric, task)
    order = stratified_order(loaded.pool.labels, len(loaded.pool), np.random.default_rng([seed, 0xDA7A]))
    index = np.sort(order[:samples])
    taken = loaded.pool.samples(index)
    session = open_session(opened.loaded.proto)
    score, accuracy, refused = _measured(session, taken, metric, task, seed)
    tried: list[dict[str, Any]] = []
    if score is not None and loaded.preprocess and loaded.real:
        tried = _presets(session, opened, data, shapes, index, metric or accuracy["metric"], task, score)
    return DataCheck(
        {
            "schema": SCHEMA,
            "model": opened.name if opened.loaded.path is None else str(opened.loaded.path),
            "source": loaded.source,
            "real": loaded.real,
            "samples": len(loaded.pool),
            "holdout": None if loaded.holdout is None else len(loaded.holdout),
            "looked_at": len(taken),
            "notes": list(loaded.notes),
            "preprocess": {key: list(v) if isinstance(v, tuple) else v for key, v in loaded.preprocess.items()},
            "inputs": [_input(spec, taken.inputs[spec.name]) for spec in loaded.pool.specs],
            "labels": _labels(loaded.pool.labels),
            "accuracy": accuracy or None,
            "presets": tried,
            "advice": _advice(tried, preset, refused, loaded),
            "error": str(refused) if refused is not None else _too_few(loaded),
        },
        taken.take(slice(0, SHEET)),
    )


def _too_few(data: Data) -> str | None:
    """Why a search cannot divide the samples, None where it can."""
    try:
        split_sizes(data)
    except DataError as refused:
        return str(refused)
    return None


def _load(opened: Opened, data: Any, preset: str | None, shapes: InputShapes, seed: int) -> Data:
    return load_samples(data, opened.loaded.proto, preset, shapes, opened.preprocess, seed)


def _input(spec: InputSpec, values: NDArray[Any]) -> dict[str, Any]:
    """Shape, range and moments of what the model is fed, by channel where it is an image."""
    axis = _channels(values.shape)
    channels = []
    for channel in range(0 if axis is None else values.shape[axis]):
        part = np.take(values, channel, axis).astype(np.float64)
        channels.append({"mean": float(part.mean()), "std": float(part.std())})
    whole = values.astype(np.float64)
    return {
        "name": spec.name,
        "dtype": str(values.dtype),
        "shape": list(values.shape[1:]),
        "min": float(whole.min()),
        "max": float(whole.max()),
        "mean": float(whole.mean()),
        "std": float(whole.std()),
        "channels": channels,
    }


def _channels(shape: tuple[int, ...]) -> int | None:
    """The channel axis of images [N, ...] of few channels."""
    if len(shape) != 4:
        return None
    return next((axis for axis in (1, 3) if shape[axis] in (1, 3, 4)), 1 if shape[1] <= MOST_CHANNELS else None)


def _labels(labels: NDArray[np.generic] | None) -> dict[str, Any] | None:
    """How often each label occurs; for other targets their shape and range."""
    if labels is None:
        return None
    found: dict[str, Any] = {
        "dtype": str(labels.dtype),
        "shape": list(labels.shape[1:]),
        "min": float(labels.min()),
        "max": float(labels.max()),
        "counts": None,
    }
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        names, counts = np.unique(labels, return_counts=True)
        if len(names) <= MOST_LABELS:
            found["counts"] = [{"label": int(name), "samples": int(n)} for name, n in zip(names, counts, strict=True)]
    return found


def _measured(
    session: Session, samples: Samples, metric: Any, task: str | None, seed: int
) -> tuple[_Score | None, dict[str, Any], DataError | None]:
    """The float model's score, its record and why it is refused; no score where only an original could be compared with."""
    reference = make_reference(session, samples, metric, task=task)
    score = _score(reference)
    if score is None:
        return None, {}, None
    error = None
    try:
        check_reference(reference, seed)
    except DataError as refused:
        error = refused
    record = {"metric": reference.metric.name, "value": score.value, "ci95": list(score.ci95), "samples": len(reference)}
    return score, record, error


def _score(reference: Reference) -> _Score | None:
    metric = reference.metric
    if not isinstance(metric, Metric):
        value = reference.whole[0] if reference.whole is not None else 0.0
        return _Score(value, (value, value), np.zeros(0))
    if not metric.needs_labels or reference.rows is None:
        return None
    units = metric.per_sample(reference.rows)
    if is_binary(units):
        interval = wilson_interval(float(units.sum()), len(units))
    else:
        interval = mean_bounds(units) if len(units) > 1 else (float(units[0]), float(units[0]))
    return _Score(metric.value(reference.rows), interval, units)


def _presets(
    session: Session,
    opened: Opened,
    data: Any,
    shapes: InputShapes,
    index: NDArray[np.int64],
    metric: Any,
    task: str | None,
    own: _Score,
) -> list[dict[str, Any]]:
    """The score under every preset on the same samples, best first; those that do not fit the images are left out."""
    found = []
    sign = 1.0
    for name in PRESETS:
        try:
            samples = _load(opened, data, name, shapes, 0).pool.samples(index)
            reference = make_reference(session, samples, metric, task=task)
        except (DataError, ModelError):
            continue
        score = _score(reference)
        if score is None:
            continue
        sign = reference.sign
        found.append({"preset": name, "value": score.value, "ci95": list(score.ci95), "better": _better(reference, score, own)})
    return sorted(found, key=lambda entry: -sign * entry["value"])


def _better(reference: Reference, score: _Score, own: _Score) -> bool:
    """Whether a preset's score is no chance, and above that of the samples as they were prepared."""
    if len(score.units) != len(own.units) or len(own.units) < 2:
        return False
    try:
        check_reference(reference)
    except DataError:
        return False
    low, _ = drop_bounds(reference.sign * (score.units - own.units), 1.0 - ERROR / len(PRESETS))
    return low > 0


def _advice(tried: Sequence[dict[str, Any]], preset: str | None, error: DataError | None, data: Data) -> list[str]:
    """What to do about what was found; nothing where the error names it."""
    said: list[str] = []
    if isinstance(error, LabelNumbering | LabelOrder):
        return said
    better = [entry for entry in tried if entry["better"]]
    if better:
        names = ", ".join(entry["preset"] for entry in better[:3])
        said.append(f"these presets score better on the same samples: {names}; give --preset {better[0]['preset']}")
    elif error is not None and tried:
        said.append(
            "no preset scores better, so it is not normalisation alone: compare label numbering and channel order (--preset "
            f"{preset.partition(',')[0] if preset else tried[0]['preset']},channels=bgr) with the training code"
        )
    elif error is not None and data.real:
        said.append("the arrays are floats that somebody prepared, so no preset can be tried: give uint8 images, or prepare them anew")
    return said


def sheet(samples: Samples, name: str | None = None) -> NDArray[np.uint8]:
    """Images [N, ...] of an input side by side as the model sees them, each stretched over its range: [rows, columns, 3].

    Raises:
        UsageError: the input holds no images of 1 or 3 channels.
    """
    images = next((a for key, a in samples.inputs.items() if name in (None, key) and a.ndim == 4 and _color_axis(a.shape)), None)
    if images is None:
        raise UsageError("--figure: the model reads no images of 1 or 3 channels; leave the figure out")
    values = np.moveaxis(images.astype(np.float64), _color_axis(images.shape) or 1, 3)
    low, high = (getattr(values, how)(axis=(1, 2, 3), keepdims=True) for how in ("min", "max"))
    pixels = np.rint(255 * (values - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    pixels = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    columns = math.ceil(math.sqrt(len(padded)))
    rows = math.ceil(len(padded) / columns)
    blank = np.full((rows * columns - len(padded), *padded.shape[1:]), 255, np.uint8)
    grid = np.concatenate([padded, blank]).reshape(rows, columns, *padded.shape[1:])
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * padded.shape[1], columns * padded.shape[2], 3)


def _color_axis(shape: tuple[int, ...]) -> int | None:
    return next((axis for axis in (1, 3) if shape[axis] in (1, 3)), None)


def write_sheet(path: Path, samples: Samples) -> None:
    """Draw `sheet` into a PNG file.

    Raises:
        UsageError: another kind of file, no images, Pillow is missing, or the file cannot be written.
    """
    import io

    from hwc_onnx.files import write_atomic

    if path.suffix.lower() != ".png":
        raise UsageError(f"--figure {path}: '{path.suffix}' is not drawn here; name a .png file")
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError('--figure needs Pillow; install it with: pip install "hwc-onnx[images]"') from error
    stream = io.BytesIO()
    Image.fromarray(sheet(samples)).save(stream, "PNG")
    write_atomic(path, stream.getvalue(), "--figure")
