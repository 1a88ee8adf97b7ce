"""Measure one candidate against the original on the same samples: the drop with its interval, and the damage."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.choose import Request
from hwc_onnx.accuracy.early_stop import EarlyStop
from hwc_onnx.accuracy.metrics import Metric, SessionMetric, WholeMetric
from hwc_onnx.accuracy.outputs import F64
from hwc_onnx.accuracy.reference import Model, Reference, chunks, make_reference
from hwc_onnx.accuracy.runner import Level, Session, Spread, cpu_features, open_session
from hwc_onnx.accuracy.statistics import drop_bounds, is_binary, mean_bounds, standard_error, wilson_interval
from hwc_onnx.accuracy.types import Evaluation, Samples
from hwc_onnx.errors import DataError, UsageError


@dataclass(frozen=True)
class Measurement:
    """An evaluation and the paired differences behind it.

    `differences` [units] are original minus compressed in the metric's unit, positive is worse; empty for a metric
    without per-sample values. `complete` says that no early stop cut it short.
    """

    evaluation: Evaluation
    differences: F64
    complete: bool


@dataclass
class _Seen:
    """What one candidate's run has given so far."""

    rows: list[F64] = field(default_factory=list)
    outputs: list[dict[str, NDArray[np.generic]]] = field(default_factory=list)
    damage: list[F64] = field(default_factory=list)
    shift: list[F64] = field(default_factory=list)
    count: int = 0


def measure(
    model: Model,
    reference: Reference,
    *,
    threads: int | None = None,
    level: Level = "fake_quant",
    stop: EarlyStop | None = None,
) -> Evaluation:
    """Run a candidate over the reference's samples.

    Args:
        model: the written graph, or a session of it (then `threads` and `level` are its own).
        reference: the original on the same samples.
        threads: threads to use, None for all usable cores.
        level: how to open the graph; see `open_session`.
        stop: when to give up early; `Evaluation.n_samples` tells how many samples were seen.

    Raises:
        RuntimeFailure: the graph does not open or run, or its outputs are not comparable.
    """
    return measure_paired(model, reference, threads=threads, level=level, stop=stop).evaluation


def measure_paired(
    model: Model,
    reference: Reference,
    *,
    threads: int | None = None,
    level: Level = "fake_quant",
    stop: EarlyStop | None = None,
) -> Measurement:
    """As `measure`, with the paired differences that tests need."""
    session = model if isinstance(model, Session) else open_session(model, threads, level, _spread(reference))
    metric, total = reference.metric, len(reference)
    seen = _Seen()
    for start, outputs in chunks(session, reference):
        damage, shift = reference.divergence(outputs, start)
        seen.damage.append(damage)
        seen.shift.append(shift)
        seen.count += len(damage)
        if isinstance(metric, Metric):
            seen.rows.append(reference.contributions(outputs, start))
        elif isinstance(metric, WholeMetric):
            seen.outputs.append(outputs)
        if stop is not None and seen.count in stop.looks(total):
            differences = _compare(reference, seen, session)[2] if isinstance(metric, Metric) else np.zeros(seen.count)
            only_energy = EarlyStop(hopeless=stop.hopeless, first=stop.first)
            if (stop if isinstance(metric, Metric) else only_energy).stops(differences, total, metric.scale):
                break
    value, original, differences = _compare(reference, seen, session)
    return Measurement(
        _evaluation(reference, seen, session, value, original, differences), differences, seen.count == total
    )


def measure_alone(
    model: Model,
    samples: Samples,
    metric: str | None = None,
    *,
    task: str | None = None,
    threads: int | None = None,
    level: Level = "all",
) -> Evaluation:
    """The value of one model by itself; `ci95` is the interval of the value, in the metric's own unit.

    Raises:
        DataError: no metric can be computed without an original (agreement, cosine and sqnr need one).
    """
    session = model if isinstance(model, Session) else open_session(model, threads, level)
    reference = make_reference(session, samples, metric, task=task)
    if isinstance(reference.metric, Metric):
        if not reference.metric.needs_labels:
            raise DataError(
                f"metric {reference.metric.name}: compares with an original model; name it (--against), or give labels"
            )
        rows = reference.contributions(reference.outputs, 0)
        value, units = reference.metric.value(rows), reference.metric.per_sample(rows)
    else:
        value, units = reference.whole or (0.0, np.zeros(1))
    if is_binary(units):
        interval = wilson_interval(float(units.sum()), len(units))
    else:
        interval = mean_bounds(units) if len(units) > 1 else (value, value)
    error = standard_error(units) * reference.metric.scale
    return Evaluation(
        metric=reference.metric.name,
        value=value,
        reference=value,
        drop_points=0.0,
        ci95=interval,
        standard_error=error,
        n_samples=len(samples),
        damage=0.0,
        ce_shift=0.0,
        threads=session.threads,
        cpu_features=cpu_features(),
    )


def measure_against(
    model: Model, against: Model, samples: Samples, metric: Request = None, *, task: str | None = None
) -> Evaluation:
    """The paired drop of one model from another. Where `sqnr` would be chosen, whose drop is measured from an INT8
    baseline that there is none of here, the two are compared by `cosine`.

    Raises:
        UsageError: such a metric was asked for.
    """
    reference = make_reference(against, samples, metric, task=task)
    if reference.needs_baseline:
        if metric is not None:
            raise UsageError(
                f"metric {reference.metric.name}: its drop is measured from the INT8 baseline, which `compress` and `apply` "
                "build and a comparison of two files does not have; choose cosine, or mse where the data has numeric targets"
            )
        reference = make_reference(against, samples, "cosine", task=task)
    return measure(model, reference, level="all")


def _spread(reference: Reference) -> Spread:
    """A user's function of a session runs what it likes, one call at a time; ours are batches side by side."""
    return "operators" if isinstance(reference.metric, SessionMetric) else "samples"


def _compare(reference: Reference, seen: _Seen, session: Session) -> tuple[float, float, F64]:
    """(candidate's value, original's value, paired differences) over the samples seen so far."""
    metric, sign = reference.metric, reference.sign
    if isinstance(metric, SessionMetric):
        assert reference.whole is not None
        return metric.of(session.ort), reference.whole[0], np.zeros(0)
    if isinstance(metric, WholeMetric):
        assert reference.whole is not None
        outputs = {name: np.concatenate([part[name] for part in seen.outputs]) for name in seen.outputs[0]}
        labels = None if reference.samples.labels is None else reference.samples.labels[: seen.count]
        ours = metric.rows(outputs, labels)
        theirs = reference.whole
        if seen.count < len(reference):
            theirs = metric.rows({name: values[: seen.count] for name, values in reference.outputs.items()}, labels)
        return ours[0], theirs[0], sign * (theirs[1] - ours[1])
    rows = np.concatenate(seen.rows)
    baseline = rows if reference.rows is None else reference.rows[: seen.count]
    differences = sign * (metric.per_sample(baseline) - metric.per_sample(rows))
    return metric.value(rows), metric.value(baseline), differences


def _bounds(reference: Reference, differences: F64) -> tuple[float, float]:
    """95 % interval of the mean difference; of answers that agree with the original's or not, which can only be lost, not below 0."""
    metric = reference.metric
    continuous = isinstance(metric, Metric) and metric.continuous
    if isinstance(metric, Metric) and not metric.needs_labels and not continuous and is_binary(differences) and differences.min() >= 0:
        return wilson_interval(float(differences.sum()), len(differences))
    return drop_bounds(differences, continuous=continuous)


def _evaluation(
    reference: Reference, seen: _Seen, session: Session, value: float, original: float, differences: F64
) -> Evaluation:
    scale = reference.metric.scale
    drop = reference.sign * (original - value) * scale
    interval, error = (drop, drop), 0.0
    if len(differences) > 1:
        # pseudo-values of a metric that is not a mean are centred on a bias-corrected drop: keep the measured one
        shift = drop - float(differences.mean()) * scale
        low, high = _bounds(reference, differences)
        interval, error = (low * scale + shift, high * scale + shift), standard_error(differences) * scale
    return Evaluation(
        metric=reference.metric.name,
        value=value,
        reference=original,
        drop_points=drop,
        ci95=interval,
        standard_error=error,
        n_samples=seen.count,
        damage=float(np.concatenate(seen.damage).mean()),
        ce_shift=float(np.concatenate(seen.shift).mean()),
        threads=session.threads,
        cpu_features=cpu_features(),
    )
