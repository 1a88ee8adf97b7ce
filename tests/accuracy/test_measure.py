from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from hwc_onnx.accuracy.damage import divergence_from, log_sum_exp
from hwc_onnx.accuracy.early_stop import EarlyStop
from hwc_onnx.accuracy.measure import measure, measure_alone, measure_paired
from hwc_onnx.accuracy.outputs import ClassOutput
from hwc_onnx.accuracy.reference import make_reference, with_baseline
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, ModelError, RuntimeFailure, UsageError
from tests.accuracy.linear_model import CLASSES, classifier, labelled, perturbed, weights


@pytest.fixture(scope="module")
def samples() -> Samples:
    images, labels = labelled(1000)
    return Samples({"image": images}, labels)


def plain_kl(p_logits: np.ndarray, q_logits: np.ndarray) -> np.ndarray:
    p = np.exp(p_logits) / np.exp(p_logits).sum(axis=1, keepdims=True)
    q = np.exp(q_logits) / np.exp(q_logits).sum(axis=1, keepdims=True)
    return (p * np.log(p / q)).sum(axis=1)


def test_measure_values_equal_numpy(samples):
    candidate = perturbed(0.3)
    ours, theirs = (run(open_session(m, 1), samples)["logits"].astype(np.float64) for m in (candidate, classifier()))
    right = [(x.argmax(axis=1) == samples.labels).mean() for x in (theirs, ours)]
    found = measure(candidate, make_reference(classifier(), samples, threads=1), threads=1)
    assert found.metric == "top1"
    assert (found.reference, found.value) == pytest.approx(right)
    assert found.drop_points == pytest.approx(100 * (right[0] - right[1]))
    assert found.damage == pytest.approx(plain_kl(theirs, ours).mean(), rel=1e-6)
    rows = np.arange(1000)
    losses = [-(x - log_sum_exp(x)[:, None])[rows, samples.labels] for x in (theirs, ours)]
    assert found.ce_shift == pytest.approx((losses[1] - losses[0]).mean(), rel=1e-6)
    assert found.ci95[0] < found.drop_points < found.ci95[1]


def test_damage_swapped_arguments_fail_the_oracle():
    """Broken twin: KL(candidate || original) is another number."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    classes = ClassOutput("z", -1, 4, False)
    damage, _ = divergence_from({"z": p}, classes, None)({"z": q}, 0)
    np.testing.assert_allclose(damage, plain_kl(p, q), rtol=1e-9)
    assert not np.allclose(damage, plain_kl(q, p), rtol=1e-2)


def test_damage_extreme_logits_stay_finite():
    p = np.array([[1000.0, -np.inf, 0.0], [0.0, 0.0, 0.0]])
    classes = ClassOutput("z", -1, 3, False)
    damage, _ = divergence_from({"z": p}, classes, None)({"z": p[::-1].copy()}, 0)
    assert np.isfinite(damage).all()
    assert divergence_from({"z": p}, classes, None)({"z": p}, 0)[0].max() == pytest.approx(0.0, abs=1e-9)


def test_damage_plain_outputs_relative_square():
    rng = np.random.default_rng(0)
    p = rng.normal(size=(40, 3, 2))
    damage, shift = divergence_from({"z": p}, None, None)({"z": p * 1.1}, 0)
    assert damage.mean() == pytest.approx(0.01)
    assert not shift.any()


def proportion_confint(lost: int, n: int) -> tuple[float, float]:
    """SciPy's Wilson interval."""
    found = binomtest(lost, n).proportion_ci(0.95, "wilson")
    return max(found.low, 0.0), found.high


def test_measure_of_the_original_drops_nothing(samples):
    found = measure(classifier(), make_reference(classifier(), samples, threads=1), threads=1)
    assert (found.drop_points, found.standard_error) == (0.0, 0.0)
    assert found.damage == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("metric", "certain"), [("cosine", True), ("agreement", False)])
def test_outputs_that_are_the_same_leave_a_continuous_metric_no_doubt(samples, metric: str, certain: bool) -> None:
    """Counted answers stay uncertain: of 1,000 that agree, one in some hundred may still not."""
    reference = make_reference(classifier(), Samples(samples.inputs, None), metric, threads=1)
    found = measure(classifier(), reference, threads=1)
    assert found.drop_points == pytest.approx(0.0, abs=1e-9)
    assert (found.ci95[1] - found.ci95[0] < 1e-6) == certain


def test_measure_softmax_in_the_graph_same_damage(samples):
    damages = []
    for softmax in (False, True):
        reference = make_reference(classifier(softmax=softmax), samples, threads=1)
        noise = np.random.default_rng(5).normal(size=weights().shape).astype(np.float32)
        model = classifier(weights() + np.float32(0.1) * noise, softmax=softmax)
        damages.append(measure(model, reference, threads=1).damage)
    assert damages[1] == pytest.approx(damages[0], rel=1e-2)


def test_measure_without_labels_uses_agreement(samples):
    unlabelled = Samples(samples.inputs, None)
    reference = make_reference(classifier(), unlabelled, threads=1)
    assert (reference.metric.name, reference.value) == ("agreement", 1.0)
    assert "no labels" in reference.reason
    assert measure(perturbed(0.3), reference, threads=1).drop_points > 0


@pytest.mark.parametrize("amount", [0.0, 0.02, 0.3])
def test_agreement_can_only_be_lost_and_its_interval_is_of_one_proportion(samples, amount: float) -> None:
    unlabelled = Samples(samples.inputs, None)
    found = measure(perturbed(amount), make_reference(classifier(), unlabelled, threads=1), threads=1)
    n = found.n_samples
    low, high = proportion_confint(round(found.drop_points / 100 * n), n)
    assert found.ci95 == pytest.approx((100 * low, 100 * high), abs=1e-9) and found.ci95[0] >= 0


def test_measure_bad_candidate_stops_early(samples):
    reference = make_reference(classifier(), samples, threads=1)
    found = measure_paired(perturbed(3.0), reference, threads=1, stop=EarlyStop(1.0))
    assert (found.evaluation.n_samples, found.complete, len(found.differences)) == (256, False, 256)
    assert measure_paired(classifier(), reference, threads=1, stop=EarlyStop(1.0)).complete


def test_measure_sqnr_drop_is_from_the_baseline(samples):
    unlabelled = Samples(samples.inputs, None)
    reference = make_reference(classifier(), unlabelled, "sqnr", threads=1)
    assert reference.value is None
    reference = with_baseline(reference, perturbed(0.01), threads=1)
    ten_times = measure(perturbed(0.1), reference, threads=1)
    assert ten_times.drop_points == pytest.approx(20.0, abs=0.1)
    assert measure(perturbed(0.01), reference, threads=1).drop_points == pytest.approx(0.0, abs=1e-6)


def test_measure_mse_lower_is_better(samples):
    targets = run(open_session(classifier(), 1), samples)["logits"] + 0.5
    reference = make_reference(classifier(), Samples(samples.inputs, targets), "mse", task="regression", threads=1)
    assert reference.value == pytest.approx(0.25, rel=1e-4)
    found = measure(perturbed(0.3), reference, threads=1)
    assert found.value > found.reference
    assert found.drop_points == pytest.approx(found.value - found.reference)
    assert reference.limit_points(0.01, relative=True) == pytest.approx(0.0025, rel=1e-4)
    with pytest.raises(UsageError, match=r"mse has no points of its own.*1%"):
        reference.limit_points(1.0, relative=False)


def accuracy(outputs, labels) -> float:
    return float((outputs["logits"].argmax(axis=1) == labels).mean())


def hits(outputs, labels):
    return outputs["logits"].argmax(axis=1) == labels


def session_score(session) -> float:
    return 0.5


def test_measure_own_metrics_agree_with_top1(samples):
    expected = measure(perturbed(0.3), make_reference(classifier(), samples, threads=1), threads=1)
    for name in ("accuracy", "hits"):
        reference = make_reference(classifier(), samples, f"tests.accuracy.test_measure:{name}", threads=1)
        found = measure(perturbed(0.3), reference, threads=1)
        assert found.drop_points == pytest.approx(expected.drop_points)
        assert found.standard_error == pytest.approx(expected.standard_error, rel=0.5)


def test_measure_callable_of_a_session(samples):
    reference = make_reference(classifier(), samples, session_score, threads=1)
    found = measure(perturbed(0.3), reference, threads=1)
    assert (found.metric, found.value, found.drop_points) == ("session_score", 0.5, 0.0)
    assert found.damage > 0


def test_measure_alone_gives_the_interval_of_the_value(samples):
    found = measure_alone(classifier(), samples, threads=1)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert found.value == pytest.approx(0.9, abs=0.03)


def test_measure_alone_without_labels_asks_for_an_original(samples):
    with pytest.raises(DataError, match=r"agreement.*--against"):
        measure_alone(classifier(), Samples(samples.inputs, None), threads=1)


def test_measure_nan_candidate_is_a_failure(samples):
    broken = weights()
    broken[0, 0] = np.nan
    with pytest.raises(RuntimeFailure, match="compressed model is NaN"):
        measure(classifier(broken), make_reference(classifier(), samples, threads=1), threads=1)


def test_reference_nan_original_is_refused(samples):
    broken = weights()
    broken[0, 0] = np.nan
    with pytest.raises(ModelError, match="output 'logits' of the original model is NaN"):
        make_reference(classifier(broken), samples, threads=1)


def test_measure_other_output_shape_is_a_failure(samples):
    other = classifier(weights()[:, : CLASSES - 1].copy())
    with pytest.raises(RuntimeFailure, match="must keep its outputs"):
        measure(other, make_reference(classifier(), samples, threads=1), threads=1)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full(1000, CLASSES), rf"0\.\.{CLASSES - 1}"),
        (np.arange(1000) % CLASSES + 1, "start at 1: subtract 1"),
        (np.full(1000, -1), "labels go from -1"),
        (np.zeros(999, np.int64), "999 labels for 1000 samples"),
        (np.zeros(1000), "whole numbers"),
    ],
)
def test_reference_bad_labels_are_refused(samples, labels, words):
    with pytest.raises(DataError, match=words):
        make_reference(classifier(), Samples(samples.inputs, labels), "top1", threads=1)


def test_reference_unknown_metric_names_the_nearest(samples):
    with pytest.raises(UsageError, match="did you mean 'agreement'"):
        make_reference(classifier(), samples, "agreemnt", threads=1)


def test_reference_metric_that_needs_labels_says_so(samples):
    with pytest.raises(DataError, match="no labels; add an array y"):
        make_reference(classifier(), Samples(samples.inputs, None), "top1", threads=1)
