"""What is compared with what: against the INT8 baseline where the original is perfect by definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hwc_onnx import api
from hwc_onnx.accuracy.measure import measure
from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.runner import open_session
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import ModelError, UsageError
from hwc_onnx.plan import CompressionPlan
from tests import tiny_models

MODEL = tiny_models.chain()
HELD = 64


def samples() -> dict[str, NDArray[np.generic]]:
    x = tiny_models.feeds(MODEL, 256 + HELD, seed=3)["x"]
    return {"x": x[HELD:], "x_holdout": x[:HELD]}


def outputs(model: onnx.ModelProto) -> NDArray[np.float64]:
    (found,) = open_session(model, 1, "all").run({"x": samples()["x_holdout"]})
    return np.asarray(found, np.float64)


def decibels(model: onnx.ModelProto) -> float:
    """Mean over the holdout of 10 log10(signal / noise), written out."""
    wanted, found = outputs(MODEL), outputs(model)
    ratios = [10 * math.log10((w @ w) / ((w - f) @ (w - f))) for w, f in zip(wanted, found, strict=True)]
    return sum(ratios) / len(ratios)


def applied(spec: str, **options: object) -> api.Applied:
    plan = api.uniform_plan(MODEL, spec)
    return api.apply_plan(MODEL, plan=plan, data=samples(), metric="sqnr", **options)


@pytest.mark.parametrize("recovery", ["none", "full", "sequential"])
def test_apply_plan_measures_sqnr_from_the_int8_baseline(recovery: str) -> None:
    plain = "full" if recovery == "sequential" else recovery
    baseline, narrow = applied("w8a8", recovery=plain), applied("w3a8", recovery=recovery)
    assert baseline.evaluation is not None and narrow.evaluation is not None
    assert baseline.evaluation.drop_points == 0.0
    expected = decibels(baseline.proto) - decibels(narrow.proto)
    assert expected > 5
    assert narrow.evaluation.drop_points == pytest.approx(expected, abs=0.05)
    assert narrow.evaluation.reference == pytest.approx(decibels(baseline.proto), abs=0.05)
    assert any("compared with the INT8 baseline" in note for note in narrow.notes)


def test_sqnr_without_the_baseline_sees_no_drop_at_all() -> None:
    """Broken twin: the reference as it is before the baseline is known."""
    narrow, held = applied("w3a8").proto, Samples({"x": samples()["x_holdout"]}, None)
    assert measure(narrow, make_reference(MODEL, held, "sqnr"), level="all").drop_points == 0.0


def test_apply_plan_compares_other_metrics_with_the_original() -> None:
    plan = api.uniform_plan(MODEL, "w3a8")
    found = api.apply_plan(MODEL, plan=plan, data=samples(), metric="cosine")
    assert found.evaluation is not None
    assert found.evaluation.reference == pytest.approx(1.0)
    assert found.evaluation.drop_points == pytest.approx(100 * (1 - found.evaluation.value))
    assert not any("baseline" in note for note in found.notes)


def test_profile_with_a_built_plan_takes_its_densities_for_all_three_networks() -> None:
    built = applied("w8a8")
    assert min(built.plan.activation_density.values()) < 0.9
    found = api.profile(MODEL, plan=built.plan)
    assert found.densities == "plan" and "as recorded in the plan" in found.to_table()
    assert found.cost.total == pytest.approx(built.cost.total, rel=1e-12)
    # the plan is the INT8 baseline, but for the weights that rounding made zero, which only a built plan knows
    assert found.baseline.total == pytest.approx(found.cost.total, rel=2e-3)
    assert found.float_cost.total == pytest.approx(built.float_cost.total, rel=2e-3)
    dense = api.profile(MODEL, plan=api.uniform_plan(MODEL, "w8a8"))
    assert dense.densities == "dense" and dense.baseline.total > 1.01 * found.baseline.total
    assert dense.float_cost.total > 1.01 * found.float_cost.total


def test_profile_of_a_pruned_file_compares_with_a_network_that_is_not() -> None:
    """The same three networks as the plan shows for the float model, though half of the file's weights are zero."""
    built = applied("w8a8,fine=magnitude:0.5")
    planned, found = api.profile(MODEL, plan=built.plan), api.profile(built.proto)
    assert found.cost.total == pytest.approx(planned.cost.total, rel=1e-9)
    assert found.baseline.total == pytest.approx(planned.baseline.total, rel=1e-9)
    assert found.float_cost.total == pytest.approx(planned.float_cost.total, rel=1e-9)
    assert found.cost.total < 0.95 * found.baseline.total
    assert all(layer.weight_density < 0.6 for layer in found.graph.layers)
    assert found.baseline_zeros == "unknown" and "have no zero weights" in found.to_table()


def test_profile_keeps_the_zeros_of_an_unquantized_file_in_all_three_networks() -> None:
    """Half of all weights are zero: INT8 costs what the plan of INT8 costs, and less than of the same file without zeros."""
    pruned = onnx.ModelProto.FromString(MODEL.SerializeToString())
    for tensor in pruned.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.ndim > 1:
            values.reshape(-1)[::2] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    found, whole = api.profile(pruned), api.profile(MODEL)
    assert found.baseline_zeros == "own" and "unquantized file's own" in found.to_table()
    assert whole.baseline_zeros == "none" and "zero weights" not in whole.to_table()
    assert found.baseline.total < 0.99 * whole.baseline.total
    assert found.float_cost.total == found.cost.total < 0.99 * whole.cost.total


def test_models_without_weights_are_profiled_and_inspected_but_not_compressed() -> None:
    b = tiny_models.Builder([1, 8, 8])
    product = b.finish(b.node("Softmax", b.node("MatMul", "x", "x")), [1, 8, 8])
    found = api.profile(product)
    assert found.cost.macs == 8 * 8 * 8 and found.cost.total > found.baseline.total > 0
    assert "MatMul" in found.to_table()
    assert [layer.key for layer in api.inspect(product).layers] == [found.graph.layers[0].key]
    b = tiny_models.Builder([1, 8])
    plain = b.finish(b.node("Relu", "x"), [1, 8])
    assert api.profile(plain).cost.total > 0 and api.inspect(plain).layers == ()
    for model in (product, plain):
        for start in (
            api.compress,
            lambda model: api.uniform_plan(model, "w8a8"),
            lambda model: api.apply_plan(model, plan=CompressionPlan(layers={})),
        ):
            with pytest.raises(ModelError, match="nothing to compress"):
                start(model)


def test_evaluate_against_refuses_sqnr_and_defaults_to_cosine(tmp_path: Path) -> None:
    compressed = applied("w3a8").save(tmp_path / "w3.onnx").path
    with pytest.raises(UsageError, match=r"metric sqnr: .*INT8 baseline.*choose cosine"):
        api.evaluate(compressed, data=samples(), against=MODEL, metric="sqnr")
    found = api.evaluate(compressed, data=samples(), against=MODEL, task="regression")
    wanted, ours = outputs(MODEL), outputs(onnx.load(compressed))
    angle = np.mean((wanted * ours).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(ours, axis=1))
    assert (found.metric, found.reference) == ("cosine", pytest.approx(1.0))
    assert found.value == pytest.approx(angle, abs=1e-3) and found.value < 0.9999
    assert found.drop_points == pytest.approx(100 * (1 - found.value))


def test_apply_plan_chooses_ranges_as_told_and_as_the_plan_says() -> None:
    plan = api.uniform_plan(MODEL, "w8a4")
    made = {ranges: api.apply_plan(MODEL, plan=plan, data=samples(), ranges=ranges) for ranges in ("minmax", "mse")}
    assert made["minmax"].proto.SerializeToString() != made["mse"].proto.SerializeToString()
    assert {ranges: found.plan.calibration.ranges for ranges, found in made.items()} == {"minmax": "minmax", "mse": "mse"}
    again = api.apply_plan(MODEL, plan=made["minmax"].plan, data=samples())
    assert again.proto.SerializeToString() == made["minmax"].proto.SerializeToString()
    with pytest.raises(UsageError, match="choose minmax, percentile, mse"):
        api.apply_plan(MODEL, plan=plan, data=samples(), ranges="widest")
