"""Refuse to compress a model that does not work on the data it was given.

A model at chance loses nothing by compression, so a search on it would report splendid results. The usual causes are
wrong normalisation, channel order or label numbering.
"""

from __future__ import annotations

import math

import numpy as np

from hwc_onnx.accuracy.metrics import Metric
from hwc_onnx.accuracy.reference import Reference
from hwc_onnx.errors import DataError

SIGNIFICANCE = 0.01
_SHUFFLES = 20
_CAUSES = "check normalisation (mean, std, --preset), channel order, layout and label numbering"


def check_reference(reference: Reference, seed: int = 0) -> None:
    """Check the original's score on labelled classes; other metrics pass.

    Raises:
        DataError: the score is what guessing gives, or does not change when labels are shuffled.
    """
    metric, labels = reference.metric, reference.samples.labels
    classes = reference.classes
    if not isinstance(metric, Metric) or not metric.needs_labels or not metric.needs_classes:
        return
    if labels is None or classes is None or reference.rows is None or metric.finish is not None:
        return
    if len(labels) > 1 and bool((labels == labels.flat[0]).all()):
        raise DataError(
            f"all {len(labels)} labels of the search samples are {labels.flat[0]}: a score on them cannot tell a model that works from "
            "one that always answers the same; give samples of several classes, or leave the labels out to compare with the original"
        )
    scores = metric.per_sample(reference.rows)
    score, n = float(scores.mean()), len(scores)
    guess = min(1.0, (5 if metric.name == "top5" else 1) / classes.classes)
    if guess < 1 and not _exceeds(score, guess, n):
        raise DataError(
            f"the original scores {metric.name} = {100 * score:.2f}% on {n} samples, guessing gives {100 * guess:.2f}%: it "
            f"is at chance; {_CAUSES}"
        )
    rng = np.random.default_rng([seed, 0x5A17])
    shuffled = []
    for _ in range(_SHUFFLES):
        rows = metric.rows(reference.outputs, None, labels[rng.permutation(n)], classes)
        shuffled.append(float(metric.per_sample(rows).mean()))
    expected, spread = float(np.mean(shuffled)), float(np.std(shuffled, ddof=1))
    if score <= expected + 3 * spread + 1e-12:
        raise DataError(
            f"the original scores {metric.name} = {100 * score:.2f}%, and {100 * expected:.2f}% when the labels are "
            f"shuffled: its answers are unrelated to the labels; {_CAUSES}"
        )


def doubts(reference: Reference, seed: int = 0) -> list[str]:
    """What `check_reference` would refuse, as a warning for callers that go on."""
    try:
        check_reference(reference, seed)
    except DataError as error:
        return [f"{error}; a drop measured on such samples says nothing"]
    return []


def _exceeds(score: float, guess: float, n: int) -> bool:
    """Whether `score` of `n` samples is above `guess` at 1% (normal approximation with a count's correction)."""
    from scipy.stats import binom

    hits = math.floor(score * n + 1e-9)
    return float(binom.sf(hits - 1, n, guess)) < SIGNIFICANCE
