"""The original model's side of every comparison, computed once and used for each candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.accuracy.choose import AnyMetric, Request, choose_metric
from hwc_onnx.accuracy.damage import Divergence, divergence_from
from hwc_onnx.accuracy.early_stop import FIRST_LOOK
from hwc_onnx.accuracy.fewer import fitting
from hwc_onnx.accuracy.metrics import Metric, SessionMetric
from hwc_onnx.accuracy.outputs import F64, ClassOutput, Outputs, class_output
from hwc_onnx.accuracy.runner import Level, Session, batch_size, open_session, run
from hwc_onnx.accuracy.signal import FEWEST, audible, with_signal, without_hiss
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, ModelError, RuntimeFailure, UsageError

Model = onnx.ModelProto | str | Path | Session
OUTPUT_BYTES = 1 << 30
"""The original's outputs on one split take at most this; where they would take more, fewer samples are measured."""
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class Reference:
    """What candidates are measured against on one split.

    `rows` are what the drop is measured from: the original's contributions to the metric [N, width], or the INT8
    baseline's for a metric on which the original is perfect by definition (None until `with_baseline`, and for users'
    functions, whose value is kept in `whole`: the value and numbers [units] whose mean it is). `reason` says why this
    metric was chosen, `note` which part of the samples is measured for want of memory (empty: all).
    """

    samples: Samples
    metric: AnyMetric
    outputs: Mapping[str, NDArray[np.generic]]
    classes: ClassOutput | None
    divergence: Divergence
    rows: F64 | None
    whole: tuple[float, F64] | None
    reason: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def sign(self) -> float:
        """1 where higher is better, -1 otherwise: drop = sign x scale x (original - compressed)."""
        return 1.0 if self.metric.higher_is_better else -1.0

    @property
    def needs_baseline(self) -> bool:
        """Whether the drop is measured from the INT8 baseline, because the original is perfect by definition."""
        return isinstance(self.metric, Metric) and self.metric.against == "baseline"

    @property
    def value(self) -> float | None:
        """The original's value (the baseline's for such metrics, None before it is known)."""
        if self.whole is not None:
            return self.whole[0]
        return self.metric.value(self.rows) if isinstance(self.metric, Metric) and self.rows is not None else None

    def contributions(self, outputs: Outputs, start: int) -> F64:
        """The metric's rows [n, width] of a candidate's outputs for samples `start` to `start + n - 1`."""
        assert isinstance(self.metric, Metric)
        stop = start + len(next(iter(outputs.values())))
        original = {name: values[start:stop] for name, values in self.outputs.items()}
        labels = None if self.samples.labels is None else self.samples.labels[start:stop]
        return self.metric.rows(outputs, original, labels, self.classes)

    def limit_points(self, limit: float, relative: bool) -> float:
        """A limit on the drop in points; a relative one is a share (0.01 for 1%) of the original's value.

        Raises:
            UsageError: the metric has no natural point, so only a relative limit makes sense.
        """
        if not relative:
            if isinstance(self.metric, Metric) and self.metric.relative_only:
                raise UsageError(
                    f"--max-drop {limit:g}: metric {self.metric.name} has no points of its own; give a share of the "
                    "original's value, such as 1%"
                )
            return limit
        if self.value is None:
            raise UsageError(
                f"--max-drop {100 * limit:g}%: metric {self.metric.name} has no value yet; measure the baseline first"
            )
        return limit * abs(self.value) * self.metric.scale


def make_reference(
    model: Model,
    samples: Samples,
    metric: Request = None,
    *,
    task: str | None = None,
    threads: int | None = None,
    level: Level = "all",
    fewest_heard: int = FEWEST,
) -> Reference:
    """Run the original once over `samples`, choose the metric and prepare the comparison.

    Where the outputs would take more than `OUTPUT_BYTES`, fewer of the samples are used, and so where the metric compares outputs that are all zero on
    some (signal.py), down to `fewest_heard`; the reference's `note` says so.

    Raises:
        DataError: samples or labels do not fit the model, or a metric of the user's own fails on it.
        ModelError: the original itself gives NaN.
        UsageError: an unknown metric or task.
        RuntimeFailure: ONNX Runtime fails.
    """
    session = model if isinstance(model, Session) else open_session(model, threads, level)
    first = run(session, samples.take(slice(0, session.fixed_batch or 1)))
    each = sum(values[:1].nbytes for values in first.values())
    samples, note = fitting(samples, each, OUTPUT_BYTES, "the original's outputs")
    outputs = run(session, samples)
    bad = [name for name, values in outputs.items() if not is_finite(values)]
    if bad:
        wrong = ~np.isfinite(outputs[bad[0]].reshape(len(samples), -1)).all(axis=1)
        raise ModelError(
            f"output '{bad[0]}' of the original model is NaN or infinite on {int(wrong.sum())} samples, the first being sample "
            f"{samples.number(int(np.flatnonzero(wrong)[0]))} of the data, counted from 0; check that they are prepared as the "
            "model expects, and that it runs correctly before compression"
        )
    labels = samples.labels
    labelled = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    classes = class_output(outputs, task, labelled)
    chosen, reason = choose_metric(metric, samples, outputs, classes, task)
    if isinstance(chosen, Metric) and chosen.of_signal:
        audibly = audible(outputs)
        outputs, heard = without_hiss(outputs, audibly), with_signal(audibly, chosen.name, fewest_heard)
        if len(heard) < len(samples):
            silent = f"{len(samples) - len(heard)} of {len(samples)} samples are left out: the original's outputs are all zero there, which {chosen.name} cannot judge"
            samples, note = samples.take(heard), "; ".join(filter(None, (note, silent)))
            outputs = {name: values[heard] for name, values in outputs.items()}
    divergence = divergence_from(outputs, classes, _class_labels(samples, outputs, classes))
    reference = Reference(samples, chosen, outputs, classes, divergence, None, None, reason, note)
    try:
        if isinstance(chosen, SessionMetric):
            value = chosen.of(session.ort)
            return replace(reference, whole=(value, np.array([value])))
        if not isinstance(chosen, Metric):
            return replace(reference, whole=chosen.rows(outputs, samples.labels))
    except RuntimeFailure as error:
        raise DataError(f"on the original model, {error}") from error
    if chosen.against == "baseline":
        return reference
    rows = [reference.contributions(part, start) for start, part in _parts(reference)]
    return replace(reference, rows=np.concatenate(rows))


def with_baseline(reference: Reference, model: Model, *, threads: int | None = None, level: Level = "all") -> Reference:
    """The same reference, knowing the INT8 baseline; changes only metrics that measure the drop from it."""
    if not reference.needs_baseline:
        return reference
    session = model if isinstance(model, Session) else open_session(model, threads, level)
    rows = [reference.contributions(outputs, start) for start, outputs in chunks(session, reference)]
    return replace(reference, rows=np.concatenate(rows))


def chunks(session: Session, reference: Reference) -> Iterator[tuple[int, dict[str, NDArray[np.generic]]]]:
    """Yield (index of the first sample, outputs) over the split, in parts that stop at every early-stop look.

    Raises:
        RuntimeFailure: the outputs differ in name or shape from the original's, or are NaN.
    """
    total = len(reference)
    size = _chunk_size(reference)
    batch = min(size, batch_size(session))
    for start in range(0, total, size):
        outputs = run(session, reference.samples.take(slice(start, min(start + size, total))), batch)
        for name, values in reference.outputs.items():
            if name not in outputs or outputs[name].shape[1:] != values.shape[1:]:
                found = list(outputs[name].shape[1:]) if name in outputs else "no such output"
                raise RuntimeFailure(
                    f"output '{name}': {found} per sample, the original gives {list(values.shape[1:])}; "
                    "a compressed model must keep its outputs"
                )
            if not is_finite(outputs[name]):
                raise RuntimeFailure(
                    f"output '{name}' of the compressed model is NaN or infinite; use a milder setting"
                )
        yield start, outputs


def is_finite(values: NDArray[np.generic]) -> bool:
    """No NaN and no positive infinity (minus infinity is how classes are masked)."""
    return values.dtype.kind != "f" or not bool(np.isnan(values).any() or (values == np.inf).any())


def _parts(reference: Reference) -> Iterator[tuple[int, dict[str, NDArray[np.generic]]]]:
    """The original's own outputs as `chunks` gives a candidate's."""
    size = _chunk_size(reference)
    for start in range(0, len(reference), size):
        yield start, {name: values[start : start + size] for name, values in reference.outputs.items()}


def _chunk_size(reference: Reference) -> int:
    """Samples whose outputs are compared at once."""
    row_bytes = sum(values[:1].nbytes for values in reference.outputs.values())
    size = FIRST_LOOK
    while size > 1 and size * row_bytes > _CHUNK_BYTES:
        size //= 2
    return size


def _class_labels(samples: Samples, outputs: Outputs, classes: ClassOutput | None) -> NDArray[np.int64] | None:
    """Labels that are valid classes of the class output, one per sample; None otherwise."""
    labels = samples.labels
    if labels is None or classes is None or labels.dtype.kind not in "iu":
        return None
    numbers = labels.astype(np.int64)
    if labels.shape != outputs[classes.name].shape[:1] or not ((numbers >= 0) & (numbers < classes.classes)).all():
        return None
    return numbers
