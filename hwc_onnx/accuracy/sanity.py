"""Refuse to compress a model that does not work on the data it was given.

A model at chance loses nothing by compression, so a search on it would report splendid results. The usual causes are
wrong normalisation, channel order or label numbering.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.accuracy.metrics import Metric
from hwc_onnx.accuracy.outputs import F64, ClassOutput
from hwc_onnx.accuracy.reference import Reference
from hwc_onnx.accuracy.statistics import drop_bounds
from hwc_onnx.errors import DataError

SIGNIFICANCE = 0.01
BEYOND_DOUBT, MOST_CLASSES = 0.999, 0.75
FEWEST_OF_A_CLASS, CLEARLY = 5, 0.8
"""Samples of a label, and the share of them with one answer, that tell the label's class (assumed)."""
MOST_NAMED = 4
_SHUFFLES = 20
_CAUSES = "check normalisation (mean, std, --preset), channel order, layout and label numbering"


class LabelNumbering(DataError):
    """Labels count the classes from another number than the model's outputs do."""


class LabelOrder(DataError):
    """Labels stand in another order than the model's outputs."""


def check_reference(reference: Reference, seed: int = 0) -> None:
    """Check the original's score on labelled classes; other metrics pass.

    Raises:
        DataError: the score is what guessing gives, or does not change when labels are shuffled.
        LabelNumbering: it is better with 1 added to, or taken from, the labels.
        LabelOrder: they stand in another order than the classes.
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
    numbering = _better_numbering(reference, metric, labels, classes, scores, seed)
    if numbering is not None:
        step, shifted = numbering
        raise LabelNumbering(
            f"the original scores {metric.name} = {100 * score:.2f}% on {n} samples, and {100 * shifted:.2f}% when 1 is "
            f"{'added to' if step > 0 else 'taken from'} every label: they are numbered otherwise than the model's outputs; "
            f"{'add 1 to' if step > 0 else 'take 1 from'} the labels"
        )
    order = _other_order(reference, labels, classes)
    if order:
        shown = ", ".join(f"label {label} is answered with class {answer}" for label, answer in list(order.items())[:MOST_NAMED])
        raise LabelOrder(
            f"the labels stand in another order than the model's classes: {shown}{', ...' if len(order) > MOST_NAMED else ''}; give labels in the "
            "model's order (folders of images are numbered from 0 by their names in alphabetical order: 0, 10, 9)"
        )
    guess = min(1.0, (5 if metric.name == "top5" else 1) / classes.classes)
    if guess < 1 and not _exceeds(score, guess, n):
        raise DataError(
            f"the original scores {metric.name} = {100 * score:.2f}% on {n} samples, guessing gives {100 * guess:.2f}%: it "
            f"is at chance; {_CAUSES}"
        )
    expected, most = _shuffled(reference, metric, labels, classes, seed)
    if score <= most:
        raise DataError(
            f"the original scores {metric.name} = {100 * score:.2f}%, and {100 * expected:.2f}% when the labels are "
            f"shuffled: its answers are unrelated to the labels; {_CAUSES}"
        )


def _shuffled(
    reference: Reference, metric: Metric, labels: NDArray[np.generic], classes: ClassOutput, seed: int
) -> tuple[float, float]:
    """The mean score with labels shuffled, and the most that chance gives (three standard deviations more)."""
    rng = np.random.default_rng([seed, 0x5A17])
    shuffled = []
    for _ in range(_SHUFFLES):
        rows = metric.rows(reference.outputs, None, labels[rng.permutation(len(labels))], classes)
        shuffled.append(float(metric.per_sample(rows).mean()))
    expected = float(np.mean(shuffled))
    return expected, expected + 3 * float(np.std(shuffled, ddof=1)) + 1e-12


def _better_numbering(
    reference: Reference, metric: Metric, labels: NDArray[np.generic], classes: ClassOutput, own: F64, seed: int
) -> tuple[int, float] | None:
    """+1 or -1 where the labels with that added to each score better beyond doubt, and how much; None where neither does.

    All labels have to be classes then, and most classes gain: two that were swapped are no other numbering. More than twice the score
    is asked for, and more than shuffled labels give: the answers of a network that sees wrong values may lie beside the right ones.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return None
    for step in (-1, 1):
        moved = labels.astype(np.int64) + step
        if len(moved) < 2 or moved.min() < 0 or moved.max() >= classes.classes:
            continue
        scores = metric.per_sample(metric.rows(reference.outputs, None, moved, classes))
        score, gained = float(scores.mean()), scores - own
        better = [float(gained[labels == label].mean()) > 0 for label in np.unique(labels)]
        if score > 2 * float(own.mean()) and np.mean(better) >= MOST_CLASSES and drop_bounds(gained, BEYOND_DOUBT)[0] > 0:
            if score > _shuffled(reference, metric, moved, classes, seed)[1]:
                return step, score
    return None


def _other_order(reference: Reference, labels: NDArray[np.generic], classes: ClassOutput) -> dict[int, int]:
    """The answers of labels that get another class's, where they are clearly the same classes in another order; empty where not.

    That is: nearly all samples of a label get the same answer, no two labels the same, and some label another one's than its own.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return {}
    answers = classes.answers(reference.outputs[classes.name])
    if answers.shape != labels.shape:
        return {}
    found: dict[int, int] = {}
    for label in np.unique(labels):
        given = answers[labels == label]
        usual = int(np.bincount(given).argmax())
        if len(given) < FEWEST_OF_A_CLASS or float(np.mean(given == usual)) < CLEARLY:
            return {}
        found[int(label)] = usual
    one_to_one = len(set(found.values())) == len(found)
    return {label: answer for label, answer in found.items() if label != answer} if one_to_one else {}


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
