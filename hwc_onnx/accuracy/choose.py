"""Which metric to use: the one asked for, or the one that fits the samples and the model's outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.checks import check_labels
from hwc_onnx.accuracy.metrics import METRICS, Metric, SessionMetric, WholeMetric
from hwc_onnx.accuracy.outputs import ClassOutput, Outputs, looks_like_scores
from hwc_onnx.accuracy.pool import Data
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, UsageError
from hwc_onnx.plugins import nearest, resolve

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)

_ONE_HOT = (
    "{where}: labels are one-hot {shape}; give the numbers of the classes (y.argmax(axis=1)), or --metric mse to take them as "
    "numeric targets"
)

AnyMetric = Metric | WholeMetric | SessionMetric
Request = str | Callable[..., Any] | AnyMetric | None
"""A metric's name, `module:function`, a callable, a metric chosen before, or None for the default."""


def choose_metric(
    request: Request, samples: Samples, outputs: Outputs, classes: ClassOutput | None, task: str | None = None
) -> tuple[AnyMetric, str]:
    """The metric and one line saying why it was chosen.

    Args:
        request: what the user asked for.
        samples: the samples to be measured on.
        outputs: the original's outputs on them.
        classes: the output that holds scores per class, if any.
        task: what the user says that the outputs are.

    Raises:
        UsageError: the name is unknown.
        DataError: the samples or outputs lack what the metric needs, or labels do not fit.
    """
    name, reason = (request, "asked for") if request is not None else _default(samples, classes, outputs, task)
    metric = _resolve(name)
    if isinstance(metric, Metric):
        _check(metric, samples, outputs, classes)
    return metric, f"metric {metric.name}: {reason}"


def check_metric(request: Request) -> None:
    """Refuse a name that leads to no metric (UsageError), before any work is done."""
    if request is not None:
        _resolve(request)


def check_declared(model: onnx.ModelProto, data: Data, request: Request, task: str | None) -> None:
    """Refuse class labels that the scores which the model declares cannot answer, before anything is run (DataError)."""
    if request not in (None, "top1", "top5") or task not in (None, "classification"):
        return
    scores = [
        value.type.tensor_type.shape.dim[1].dim_value
        for value in model.graph.output
        if value.type.tensor_type.elem_type in _FLOATS and len(value.type.tensor_type.shape.dim) == 2
    ]
    for pool in (data.pool, data.holdout):
        labels = None if pool is None else pool.labels
        if labels is not None and request is None and scores and _one_hot(labels, scores[0]):
            raise DataError(_ONE_HOT.format(where=data.source, shape=list(labels.shape)))
        if labels is not None and request is None and scores and scores[0] > 1:
            _check_form(labels, scores[0], data.source)
        if labels is not None and labels.dtype.kind in "iu" and labels.ndim == 1 and scores and scores[0] > 1:
            check_labels(labels, len(labels), scores[0], data.source)


def _default(samples: Samples, classes: ClassOutput | None, outputs: Outputs, task: str | None) -> tuple[str, str]:
    labels = samples.labels
    if labels is not None and classes is not None and _one_hot(labels, classes.classes):
        raise DataError(_ONE_HOT.format(where="data", shape=list(labels.shape)))
    if labels is not None and labels.dtype.kind in "iu" and classes is not None:
        if labels.ndim == 1:
            return "top1", "the data has labels"
        return "miou", "the data has a class label per position"
    if labels is not None and labels.dtype.kind == "f":
        return "mse", "the data has numeric targets"
    if classes is not None:
        return "agreement", "the data has no labels, so the original model's answers are the reference"
    reason = "there are no labels and no classes, so outputs are compared with the original's, in dB"
    first = next(iter(outputs.items()))
    if task is None and looks_like_scores(first[1]):
        reason += (
            f"; output '{first[0]}' looks like scores of {first[1].shape[-1]} classes: `--metric agreement --task classification` counts "
            "how many answers stay the same"
        )
    return "sqnr", reason


def _check_form(labels: NDArray[np.generic], classes: int, where: str) -> None:
    """Refuse class numbers that are stored as a column or as floats, which would count as something else (DataError)."""
    if labels.dtype.kind in "iu" and labels.ndim == 2 and labels.shape[1] == 1:
        raise DataError(f"{where}: labels have shape {list(labels.shape)}; give one number per sample (y.ravel())")
    values = labels.astype(np.float64)
    if labels.dtype.kind == "f" and labels.ndim == 1 and ((values % 1 == 0) & (values >= 0) & (values < classes)).all():
        raise DataError(
            f"{where}: labels are {labels.dtype} and look like the numbers of {classes} classes; give whole numbers (y.astype(int))"
        )


def _one_hot(labels: NDArray[np.generic], classes: int) -> bool:
    if classes < 2 or labels.ndim != 2 or labels.shape[1] != classes or labels.dtype.kind not in "iuf":
        return False
    return bool((np.isin(labels, (0, 1)).all(axis=1) & (labels.sum(axis=1) == 1)).all())


def _resolve(name: Request) -> AnyMetric:
    if isinstance(name, Metric | WholeMetric | SessionMetric):
        return name
    if isinstance(name, str):
        if name in METRICS:
            return METRICS[name]
        if ":" not in name:
            known = list(METRICS)
            raise UsageError(
                f"unknown metric '{name}'{nearest(name, known)}; choose from {', '.join(known)}, or name your own as "
                "module:function"
            )
        target = resolve("metric", name, {})
        return target if isinstance(target, Metric) else _of_function(name, target)
    if callable(name):
        return _of_function(getattr(name, "__name__", "metric"), name)
    raise UsageError(f"metric {name!r}: must be a name, module:function or a function")


def _of_function(name: str, function: Any) -> AnyMetric:
    """A user's function: of (outputs, labels), or of an ONNX Runtime session."""
    if not callable(function):
        raise UsageError(f"metric '{name}': is a {type(function).__name__}; name a function of (outputs, labels)")
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    better, scale = getattr(function, "higher_is_better", True), float(getattr(function, "scale", 100.0))
    if len(required) == 1:
        return SessionMetric(name, function, better, scale)
    return WholeMetric(name, function, better, scale)


def _check(metric: Metric, samples: Samples, outputs: Outputs, classes: ClassOutput | None) -> None:
    shapes = ", ".join(f"'{name}' {list(values.shape[1:])} {values.dtype}" for name, values in outputs.items())
    if metric.needs_classes and classes is None:
        raise DataError(
            f"metric {metric.name}: needs an output with scores per class, the model has {shapes} (per sample); choose "
            "another metric, or say what the outputs are with --task classification or segmentation"
        )
    if not metric.needs_labels:
        return
    if samples.labels is None:
        raise DataError(
            f"metric {metric.name}: the data has no labels; add an array y, or choose agreement, cosine or sqnr"
        )
    check_labels(samples.labels, len(samples), classes.classes if classes and metric.needs_classes else None, "labels")
    first = next(iter(outputs.values()))
    wanted = first.shape if classes is None or not metric.needs_classes else _answer_shape(outputs, classes)
    same_count = samples.labels[0].size == first[0].size
    if not (same_count if not metric.needs_classes else samples.labels.shape == wanted):
        raise DataError(
            f"metric {metric.name}: labels have shape {list(samples.labels.shape)}, the model answers {list(wanted)}; "
            "give one label per answer"
        )


def _answer_shape(outputs: Outputs, classes: ClassOutput) -> tuple[int, ...]:
    """Shape of the answers [N, ...]: the output's without its class axis."""
    shape = list(outputs[classes.name].shape)
    del shape[classes.axis]
    return tuple(shape)
