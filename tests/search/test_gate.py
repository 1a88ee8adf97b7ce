from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.statistics import tango_bounds
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import UsageError
from hwc_onnx.search.gate import Gate, Judging
from hwc_onnx.search.ladder import _margin
from tests.search.test_budget import outcome

N = 2000


def table_model(answers: np.ndarray) -> onnx.ModelProto:
    """Answers sample i (fed its number) with class `answers[i]` of two."""
    scores = np.zeros((len(answers), 2), np.float32)
    scores[np.arange(len(answers)), answers] = 1.5
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["logits"])],
        "table",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(scores, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


LABELS = np.arange(N) % 2
SAMPLES = Samples({"i": np.arange(N)}, LABELS)


def dropping(harmed: int, mended: int = 0) -> onnx.ModelProto:
    """Original: wrong on the last 100. This one: wrong on `harmed` more, right on `mended` of them."""
    answers = LABELS.copy()
    answers[N - 100 :] ^= 1
    answers[:harmed] ^= 1
    answers[N - 100 : N - 100 + mended] ^= 1
    return table_model(answers)


@pytest.fixture(scope="module")
def holdout():
    return make_reference(dropping(0), SAMPLES, threads=1)


def gate(holdout, mode: str, limit: float = 1.0) -> Gate:
    return Gate.choose(mode, holdout, limit, threads=1)


def test_walk_returns_the_last_that_passed_and_stops_at_the_first_failure(holdout):
    models = [dropping(2), dropping(10), dropping(60), dropping(0)]
    chosen, looks = gate(holdout, "point").walk(models)
    assert chosen == 1
    assert [look.passed for look in looks] == [True, True, False]
    assert [look.evaluation.drop_points for look in looks] == pytest.approx([0.1, 0.5, 3.0])


def test_walk_first_fails_nothing_passes(holdout):
    chosen, looks = gate(holdout, "point").walk([dropping(60), dropping(0)])
    assert (chosen, len(looks)) == (None, 1)


def test_look_upper_demands_the_bound_point_only_the_estimate(holdout):
    model = dropping(15)
    upper, point = gate(holdout, "upper").look(model), gate(holdout, "point").look(model)
    bound = 100 * tango_bounds(15, 0, N, 0.90)[1]
    assert upper.upper_bound_points == pytest.approx(bound)
    assert (point.passed, upper.passed) == (True, bound <= 1.0) == (True, False)


def test_look_drop_exactly_at_the_limit_passes_by_point(holdout):
    assert gate(holdout, "point").look(dropping(20)).passed


def test_look_model_that_does_not_run_fails_with_its_reason(holdout):
    broken = dropping(0)
    broken.graph.node[0].op_type = "Frobnicate"
    look = gate(holdout, "point").look(broken)
    assert not look.passed
    assert "Frobnicate" in look.failure
    assert json.loads(json.dumps(look.payload(), allow_nan=False))["evaluation"]["value"] is None


def test_look_judges_the_worse_optimisation_level(holdout, monkeypatch):
    from hwc_onnx.search import gate as module

    def by_level(model, reference, *, threads, level):
        return true_measure(dropping(40 if level == "all" else 0), reference, threads=threads, level=level)

    true_measure = module.measure_paired
    monkeypatch.setattr(module, "measure_paired", by_level)
    look = gate(holdout, "point").look(dropping(0))
    assert not look.passed
    assert look.evaluation.drop_points == pytest.approx(2.0)
    assert look.at_disable_all > look.at_enable_all


def test_walk_families_of_bad_plans_are_accepted_at_most_five_percent_of_the_time(holdout):
    """All plans break the limit by a hair; the chance that any is accepted is that of the first look."""
    rng = np.random.default_rng(0)
    accepted, rounds = 0, 400
    judge = gate(holdout, "upper")
    original = holdout.rows[:, 0]
    for _ in range(rounds):
        passed = False
        for _ in range(3):
            flips = rng.random(N) < 0.0101
            differences = np.where(flips, 1.0, 0.0)
            found = passes(judge, differences, original)
            if not found:
                break
            passed = True
        accepted += passed
    assert accepted / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


def passes(judge: Gate, differences: np.ndarray, original: np.ndarray) -> bool:
    from hwc_onnx.accuracy.measure import Measurement
    from hwc_onnx.accuracy.types import Evaluation

    drop = 100 * differences.mean()
    evaluation = Evaluation("top1", 0.9, 0.9, drop, (0, 0), 0.0, N, 0.0, 0.0, 1, "")
    return judge._bound(Measurement(evaluation, differences, True)) <= judge.limit_points


def test_choose_default_depends_on_what_the_holdout_can_resolve(holdout):
    # disagreement 4% (assumed) on 2,000 samples: half-width 0.74 points
    unresolved = Gate.choose(None, holdout, 1.0)
    assert unresolved.mode == "point"
    assert f"about {unresolved.images_needed} samples" in unresolved.note
    assert unresolved.images_needed == pytest.approx((1.645 * 20 / 0.5) ** 2, rel=1e-2)
    assert Gate.choose(None, holdout, 2.0).mode == "upper"


def test_choose_uses_the_spread_measured_on_the_search_split(holdout):
    tight = measure(dropping(4), holdout, threads=1)
    assert Gate.choose(None, holdout, 1.0, expected=[tight]).mode == "upper"
    loose = replace(tight, standard_error=5.0)
    assert Gate.choose(None, holdout, 2.0, expected=[tight, loose]).mode == "point"


def test_choose_number_without_samples_cannot_be_bounded():
    reference = make_reference(dropping(0), SAMPLES, lambda session: 0.5, threads=1)
    assert Gate.choose(None, reference, 1.0).mode == "point"
    with pytest.raises(UsageError, match="has no bound"):
        Gate.choose("upper", reference, 1.0)
    look = Gate.choose(None, reference, 1.0, threads=1).look(dropping(60))
    assert look.passed and look.upper_bound_points is None


def test_choose_unknown_mode_is_refused(holdout):
    with pytest.raises(UsageError, match="choose upper or point"):
        Gate.choose("lower", holdout, 1.0)


def test_walk_more_than_eight_plans_are_refused(holdout):
    with pytest.raises(UsageError, match="at most 8"):
        gate(holdout, "point").walk([dropping(0)] * 9)


def test_the_search_expects_the_mode_that_the_gate_takes(holdout):
    """One plan whose drop is unsure enough turns the gate to the drop as measured."""
    calm = replace(outcome(0.5, drop=0.5), standard_error=0.2, n_samples=400)
    unsure = replace(calm, standard_error=0.9)
    for plans, asked, mode in (([calm], None, "upper"), ([calm, unsure], None, "point"), ([calm, unsure], "upper", "upper"), ([calm], "point", "point")):
        assert Gate.choose(asked, holdout, 1.0, expected=plans).mode == mode
        assert (_margin(Judging(N, asked), plans, 0.2, 400, 1.0) > 0.0) is (mode == "upper")
