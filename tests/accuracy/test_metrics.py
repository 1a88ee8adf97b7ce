from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.accuracy import metrics as mt
from hwc_onnx.accuracy.choose import choose_metric
from hwc_onnx.accuracy.metrics import METRICS, Metric, WholeMetric, unit_of
from hwc_onnx.accuracy.outputs import ClassOutput, class_output
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError

LOGITS = np.array([[3, 1, 0], [0, 2, 1], [5, 5, 1], [0, 0, 9]], np.float32)
LABELS = np.array([0, 2, 1, 2])
CLASSES = ClassOutput("logits", -1, 3, False)


def value(name: str, outputs, original=None, labels=None, classes=CLASSES) -> float:
    metric = METRICS[name]
    return metric.value(metric.rows(outputs, original, labels, classes))


def test_top1_counts_right_answers_and_breaks_ties_like_argmax():
    # sample 2 ties between classes 0 and 1: argmax answers 0, the label is 1
    assert value("top1", {"logits": LOGITS}, labels=LABELS) == 0.5
    answers = LOGITS.argmax(axis=1)
    assert value("top1", {"logits": LOGITS}, labels=LABELS) == (answers == LABELS).mean()


def test_top5_looks_at_five_places():
    scores = np.arange(10, dtype=np.float32)[None, :].repeat(2, axis=0)
    outputs = {"logits": scores}
    assert value("top5", outputs, labels=np.array([5, 4]), classes=ClassOutput("logits", -1, 10, False)) == 0.5


def test_agreement_of_the_original_with_itself_is_one():
    outputs = {"logits": LOGITS}
    assert value("agreement", outputs, outputs) == 1.0
    assert value("agreement", {"logits": -LOGITS}, outputs) == 0.0


def test_miou_equals_a_pixel_loop():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 4, 5, 7)).astype(np.float32)
    labels = rng.integers(0, 4, (6, 5, 7))
    labels[0, 0, 0] = 255
    answers = scores.argmax(axis=1)
    shares = []
    for k in range(4):
        valid = labels != 255
        both = ((answers == k) & (labels == k) & valid).sum()
        either = (((answers == k) | (labels == k)) & valid).sum()
        shares.append(both / either)
    classes = ClassOutput("map", 1, 4, False)
    rows = mt.confusion({"map": scores}, None, labels, classes)
    assert METRICS["miou"].value(rows) == pytest.approx(np.mean(shares))


def test_miou_pseudo_values_are_the_delete_one_jackknife():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(9, 3, 4, 4)).astype(np.float32), rng.integers(0, 3, (9, 4, 4))
    metric = METRICS["miou"]
    rows = metric.rows({"map": scores}, None, labels, ClassOutput("map", 1, 3, False))
    units = metric.per_sample(rows)
    for i in range(9):
        left = metric.value(np.delete(rows, i, axis=0))
        assert units[i] == pytest.approx(9 * metric.value(rows) - 8 * left)


def test_cosine_of_scaled_outputs_is_one():
    assert value("cosine", {"logits": 3 * LOGITS}, {"logits": LOGITS}) == pytest.approx(1.0)
    assert value("cosine", {"logits": -LOGITS}, {"logits": LOGITS}) == pytest.approx(-1.0)


def test_sqnr_of_known_noise():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(4, 1000))
    noisy = signal + 0.01 * rng.normal(size=(4, 1000))
    assert value("sqnr", {"out": noisy}, {"out": signal}, classes=None) == pytest.approx(40, abs=0.3)


def test_sqnr_of_identical_outputs_is_capped():
    assert value("sqnr", {"logits": LOGITS}, {"logits": LOGITS}) == 120.0


def test_mse_against_targets():
    outputs = {"out": np.array([[1.0], [3.0]])}
    assert value("mse", outputs, labels=np.array([1.0, 1.0]), classes=None) == 2.0


def test_whole_metric_one_number_gives_jackknife_groups_around_it():
    def accuracy(outputs, labels):
        return float((outputs["logits"].argmax(axis=1) == labels).mean())

    rng = np.random.default_rng(0)
    outputs, labels = {"logits": rng.normal(size=(400, 3))}, rng.integers(0, 3, 400)
    total, units = WholeMetric("accuracy", accuracy).rows(outputs, labels)
    # for a mean the pseudo-values of equal groups are the groups' means
    assert units.mean() == pytest.approx(total)
    assert units.std(ddof=1) / np.sqrt(len(units)) == pytest.approx(np.sqrt(total * (1 - total) / 400), rel=0.5)


def test_class_output_recognises_logits_probabilities_and_neither():
    logits = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert class_output({"a": logits}) == ClassOutput("a", -1, 4, False)
    assert class_output({"a": probabilities}) == ClassOutput("a", -1, 4, True)
    assert class_output({"a": 1 / (1 + np.exp(-logits))}) is None
    assert class_output({"a": logits[:, :1]}) is None
    assert class_output({"a": logits}, "regression") is None
    assert class_output({"a": np.zeros((2, 3, 4, 4), np.float32)}, "segmentation") == ClassOutput("a", 1, 3, False)


def test_metric_table_names_match():
    for name, metric in METRICS.items():
        assert isinstance(metric, Metric)
        assert metric.name == name


@pytest.mark.parametrize("name", ["sqnr", "cosine"])
def test_a_model_of_whole_numbers_alone_has_no_distance(name: str) -> None:
    outputs = {"best": np.array([1, 2, 3])}
    with pytest.raises(DataError, match=r"best: whole numbers only.*--metric"):
        getattr(mt, name)(outputs, outputs, None, None)
    with_one = outputs | {"scores": np.ones((3, 2), np.float32)}
    assert getattr(mt, name)(with_one, with_one, None, None).shape == (3, 1)


def test_sqnr_chosen_by_itself_says_how_class_scores_can_be_counted():
    """Scores of 3 classes at each of 4 positions [N, 4, 3]: no output [samples, classes], so sqnr is chosen."""
    logits = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    samples = Samples({"x": np.zeros((6, 1), np.float32)}, None)

    def reason(values, **options):
        outputs = {"out": values}
        return choose_metric(None, samples, outputs, class_output(outputs, options.get("task")), **options)[1]

    said = reason(scores)
    assert said.startswith("metric sqnr") and "'out' looks like scores of 3 classes: `--metric agreement --task classification`" in said
    for other in (logits, scores * 0.99, scores - 0.5, scores[..., :1] * 0 + 1):
        assert reason(other).startswith("metric sqnr") and "looks like" not in reason(other)
    assert "looks like" not in reason(scores, task="regression")
    # what the note advises is what makes it count
    assert reason(scores, task="classification").startswith("metric agreement")
    assert choose_metric("agreement", samples, {"out": scores}, class_output({"out": scores}, "classification"))[0].name == "agreement"


def test_unit_of_a_drop():
    assert unit_of("sqnr") == "dB" and unit_of("top1") == "points"
