"""Metrics: a table of names, and for each what one sample contributes and how contributions become a value.

A metric looks at a batch of outputs and returns one row of numbers per sample. The value is a function of the rows'
mean: the mean itself (top-1 accuracy), or more (mean intersection over union, from class-by-class counts). So values,
paired differences and their intervals follow the same path for every metric.

A metric of your own is `module:function`, called with (outputs, labels) of all samples; it returns one number per
sample or one number in all. A function of one argument gets the open ONNX Runtime session instead. Attributes of the function may say more: `higher_is_better` (default True) and `scale`
(points per unit, default 100).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.outputs import F64, ClassOutput, Outputs, float_outputs
from hwc_onnx.errors import HwcError, RuntimeFailure

Labels = NDArray[np.generic]
Rows = Callable[[Outputs, "Outputs | None", "Labels | None", "ClassOutput | None"], F64]
"""(outputs, the original's outputs, labels, class output) -> contributions [n, width]."""


@dataclass(frozen=True)
class Metric:
    """How good a model's outputs are.

    `scale` is points per unit. `finish` turns mean contributions [..., width] into values [...]; None takes the only
    column. `against` says what the drop is measured from: the "original" model's value, or the INT8 "baseline"'s where
    the original scores perfectly by definition. `relative_only`: a limit makes sense only as a share of that value.
    `continuous`: a sample is never just right or wrong, even where all differences happen to be zero. `of_signal`: a sample on which the original's
    outputs are all zero tells nothing (signal.py).
    """

    name: str
    rows: Rows
    higher_is_better: bool = True
    scale: float = 100.0
    finish: Callable[[F64], F64] | None = None
    needs_labels: bool = True
    needs_classes: bool = False
    against: str = "original"
    relative_only: bool = False
    continuous: bool = False
    of_signal: bool = False

    def value(self, rows: F64) -> float:
        """The metric's value of samples with contributions [n, width]."""
        return float(self._finish(rows.mean(axis=0)))

    def per_sample(self, rows: F64) -> F64:
        """One number per sample whose mean is the value, [n].

        For a value that is not a mean these are the jackknife's pseudo-values, n x value - (n - 1) x value without
        the sample, so that their spread estimates the value's standard error.

        Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 11.5.
        """
        if self.finish is None:
            return rows[:, 0]
        n = len(rows)
        if n < 2:
            return np.full(n, self.value(rows))
        without = self._finish((rows.sum(axis=0) - rows) / (n - 1))
        return n * self.value(rows) - (n - 1) * without

    def _finish(self, means: F64) -> F64:
        return means[..., 0] if self.finish is None else self.finish(means)


@dataclass(frozen=True)
class WholeMetric:
    """A user's function of all outputs and labels: one number per sample, or one in all."""

    name: str
    function: Callable[[Outputs, Labels | None], Any]
    higher_is_better: bool = True
    scale: float = 100.0
    groups: int = 20

    def rows(self, outputs: Outputs, labels: Labels | None) -> tuple[float, F64]:
        """The value, and numbers whose mean it is: per sample [N], or jackknife pseudo-values of groups of samples."""
        result = asked(self.name, self.function, outputs, labels)
        n = len(next(iter(outputs.values())))
        if result.ndim:
            if result.shape != (n,):
                raise RuntimeFailure(f"metric {self.name}: returned shape {list(result.shape)} for {n} samples; return [{n}] or one number")
            return float(result.mean()), result
        groups = min(self.groups, n)
        membership = np.arange(n) % groups
        without = np.array([self._value(outputs, labels, membership != group) for group in range(groups)])
        return float(result), groups * float(result) - (groups - 1) * without

    def _value(self, outputs: Outputs, labels: Labels | None, keep: NDArray[np.bool_]) -> float:
        kept = {name: values[keep] for name, values in outputs.items()}
        return float(asked(self.name, self.function, kept, None if labels is None else labels[keep]))


@dataclass(frozen=True)
class SessionMetric:
    """A user's function of an open ONNX Runtime session that returns one number; it has no interval."""

    name: str
    function: Callable[[Any], float]
    higher_is_better: bool = True
    scale: float = 100.0

    def of(self, session: Any) -> float:
        """The number for a session (RuntimeFailure, see `asked`)."""
        result = asked(self.name, self.function, session)
        if result.size != 1:
            raise RuntimeFailure(f"metric {self.name}: returned shape {list(result.shape)}; return one number")
        return float(result.reshape(()))


def asked(name: str, function: Callable[..., Any], *arguments: Any) -> F64:
    """What a user's function returns, as numbers.

    Raises:
        RuntimeFailure: it raised, or returned something else than finite numbers.
    """
    try:
        result = np.asarray(function(*arguments), np.float64)
    except HwcError:
        raise
    except Exception as error:
        raise RuntimeFailure(f"metric {name}: raised {type(error).__name__}: {error}; mend the function") from error
    wrong = ~np.isfinite(result)
    if wrong.any():
        where = f" for {int(wrong.sum())} of {len(result)} samples, the first being {int(np.flatnonzero(wrong)[0])}" if result.ndim else ""
        raise RuntimeFailure(f"metric {name}: returned NaN or infinity{where}; return a finite number for every sample")
    return result


def _top(outputs: Outputs, labels: Labels | None, classes: ClassOutput | None, places: int) -> F64:
    assert labels is not None and classes is not None
    scores = np.moveaxis(outputs[classes.name], classes.axis, -1).astype(np.float64)
    truth = labels.astype(np.int64)[..., None]
    wanted = np.take_along_axis(scores, truth, axis=-1)
    # ties count as argmax breaks them: an equal score at a lower index wins
    index = np.arange(scores.shape[-1])
    better = (scores > wanted) | ((scores == wanted) & (index < truth))
    return _column(better.sum(axis=-1) < places)


def top1(outputs: Outputs, _: Outputs | None, labels: Labels | None, classes: ClassOutput | None) -> F64:
    """1 where the most probable class is the label."""
    return _top(outputs, labels, classes, 1)


def top5(outputs: Outputs, _: Outputs | None, labels: Labels | None, classes: ClassOutput | None) -> F64:
    """1 where the label is among the five most probable classes."""
    return _top(outputs, labels, classes, 5)


def agreement(outputs: Outputs, original: Outputs | None, _: Labels | None, classes: ClassOutput | None) -> F64:
    """1 where the most probable class is the original model's."""
    assert original is not None and classes is not None
    return _column(classes.answers(outputs[classes.name]) == classes.answers(original[classes.name]))


def confusion(outputs: Outputs, _: Outputs | None, labels: Labels | None, classes: ClassOutput | None) -> F64:
    """Pixels per (label, answer) pair, [n, classes x classes]; labels outside the classes (255, say) are ignored."""
    assert labels is not None and classes is not None
    count = classes.classes
    answers = classes.answers(outputs[classes.name]).reshape(len(labels), -1)
    wanted = labels.reshape(len(labels), -1).astype(np.int64)
    valid = (wanted >= 0) & (wanted < count)
    rows = np.zeros((len(labels), count * count))
    for row, answer, want, use in zip(rows, answers, wanted, valid, strict=True):
        row += np.bincount(want[use] * count + answer[use], minlength=count * count)
    return rows


def mean_iou(counts: F64) -> F64:
    """Mean over the classes that occur of intersection / union, from confusion counts [..., classes x classes]."""
    classes = int(np.sqrt(counts.shape[-1]))
    table = counts.reshape(*counts.shape[:-1], classes, classes)
    both = np.diagonal(table, axis1=-2, axis2=-1)
    union = table.sum(axis=-1) + table.sum(axis=-2) - both
    occurs = union > 0
    shares = np.where(occurs, both / np.where(occurs, union, 1.0), 0.0)
    result: F64 = shares.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
    return result


def cosine(outputs: Outputs, original: Outputs | None, _: Labels | None, __: ClassOutput | None) -> F64:
    """Cosine of the angle between the outputs and the original's, of the output where it is least; outputs that are all zero in a sample of the original
    are passed over there (1 where all are).
    """
    assert original is not None
    ours, theirs = float_outputs(outputs), float_outputs(original)
    angles = []
    for name, values in ours.items():
        signal = (theirs[name] ** 2).sum(axis=1)
        lengths = np.sqrt((values**2).sum(axis=1) * signal)
        dots = (values * theirs[name]).sum(axis=1)
        angles.append(np.where(signal > 0, np.where(lengths > 0, dots / np.maximum(lengths, 1e-30), 0.0), np.inf))
    least = np.min(angles, axis=0)
    return _column(np.where(np.isfinite(least), least, 1.0))


def sqnr(outputs: Outputs, original: Outputs | None, _: Labels | None, __: ClassOutput | None) -> F64:
    """Signal to noise ratio in decibels, the original's outputs being the signal, of the output where it is least; at most 120.

    An output that is all zero in a sample of the original has no ratio and is passed over; a sample where all are is worth 0, whatever comes
    of it (accuracy/signal.py leaves such samples out).
    """
    assert original is not None
    ours, theirs = float_outputs(outputs), float_outputs(original)
    ratios = []
    for name, values in ours.items():
        signal = (theirs[name] ** 2).sum(axis=1)
        noise = ((values - theirs[name]) ** 2).sum(axis=1)
        decibels = 10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30))
        ratios.append(np.where(signal > 0, np.where(noise > 0, np.clip(decibels, -120, 120), 120.0), np.inf))
    least = np.min(ratios, axis=0)
    return _column(np.where(np.isfinite(least), least, 0.0))


def squared_error(outputs: Outputs, _: Outputs | None, labels: Labels | None, __: ClassOutput | None) -> F64:
    """Mean squared error between the first output and the targets."""
    assert labels is not None
    values = next(iter(float_outputs(outputs).values()))
    return _column((values - labels.reshape(len(labels), -1).astype(np.float64)) ** 2)


def _column(values: NDArray[Any]) -> F64:
    """Values [n, ...] averaged per sample, [n, 1]."""
    column: F64 = values.reshape(len(values), -1).astype(np.float64).mean(axis=1, keepdims=True)
    return column


METRICS: Mapping[str, Metric] = {
    "top1": Metric("top1", top1, needs_classes=True),
    "top5": Metric("top5", top5, needs_classes=True),
    "agreement": Metric("agreement", agreement, needs_labels=False, needs_classes=True),
    "miou": Metric("miou", confusion, finish=mean_iou, needs_classes=True, continuous=True),
    "cosine": Metric("cosine", cosine, needs_labels=False, continuous=True, of_signal=True),
    "sqnr": Metric("sqnr", sqnr, scale=1.0, needs_labels=False, against="baseline", continuous=True, of_signal=True),
    "mse": Metric("mse", squared_error, higher_is_better=False, scale=1.0, relative_only=True, continuous=True),
}


def unit_of(name: str) -> str:
    """What a drop of the metric of this name is counted in."""
    return "dB" if name == "sqnr" else "points"
