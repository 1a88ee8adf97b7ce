"""Scales that are powers of two, and zero points that are 0, from the plan to the written file."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx import api
from hwc_onnx.errors import PlanError
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.quantization import dialects
from hwc_onnx.quantization.dialects import ORT
from hwc_onnx.quantization.ranges import METHODS
from hwc_onnx.recovery import layer as layer_module
from hwc_onnx.recovery.scales import refit_scale, search_scale, storable
from hwc_onnx.rewrite import layer_weights
from tests import tiny_models
from tests.recovery.problems import case, output_error, quadratic

MODELS = {name: tiny_models.ALL[name]() for name in ("chain", "residual", "depthwise", "flatten_gemm", "mlp_block")}


def data(model: onnx.ModelProto, count: int = 320) -> dict[str, NDArray[np.generic]]:
    x = tiny_models.feeds(model, count, seed=3)["x"]
    return {"x": x[64:], "x_holdout": x[:64]}


def applied(name: str, spec: str = "w4a6", **options: object) -> api.Applied:
    model = MODELS[name]
    return api.apply_plan(model, plan=api.uniform_plan(model, spec), data=data(model), metric="sqnr", **options)


def scales(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """The scale of every QuantizeLinear and DequantizeLinear, by its name."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        node.input[1]: tensors[node.input[1]]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


def all_powers(model: onnx.ModelProto) -> bool:
    found = scales(model)
    assert found
    return all(bool(np.all(np.frexp(scale)[0] == 0.5)) for scale in found.values())


RECOVERIES = [*((name, "full") for name in MODELS), *(("residual", which) for which in ("none", "ranges", "sequential"))]


@pytest.mark.parametrize(("name", "recovery"), RECOVERIES)
def test_all_scales_of_a_file_are_powers_of_two(name: str, recovery: str) -> None:
    found = applied(name, recovery=recovery, power_of_two=True)
    assert all_powers(found.proto) and found.plan.calibration.power_of_two


@pytest.mark.parametrize(
    ("spec", "recovery"), [("w2a4", "full"), ("w16a8", "none"), ("w3a5,fine=obs:0.5", "ranges"), ("w8a8,coarse=fold:0.4", "none")]
)
def test_the_file_is_what_its_plan_foretold(spec: str, recovery: str) -> None:
    found = applied("residual", spec, recovery=recovery, power_of_two=True)
    read = api.profile(found.proto)
    assert all_powers(found.proto)
    assert read.cost.total == pytest.approx(found.cost.total, rel=1e-9)
    again = api.apply_plan(MODELS["residual"], plan=found.plan, data=data(MODELS["residual"]), metric="sqnr")
    assert again.proto.SerializeToString() == found.proto.SerializeToString()
    assert CompressionPlan.from_json(found.plan.to_json()) == found.plan


def test_powers_of_two_cost_little_accuracy() -> None:
    for name in ("chain", "residual"):
        free, powers = (applied(name, "w8a8", power_of_two=flag).proto for flag in (False, True))
        assert all_powers(powers) and not all_powers(free)
        x = {"x": data(MODELS[name])["x_holdout"]}
        wanted = tiny_models.run(MODELS[name], x)[0]
        errors = [float(np.mean((tiny_models.run(one, x)[0] - wanted) ** 2)) for one in (free, powers)]
        assert errors[1] < 12 * errors[0] and errors[1] < 0.01 * float(np.mean(wanted**2))


def test_scales_that_are_only_rounded_at_the_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: integers chosen for free scales, which are moved to powers of two afterwards."""
    made = scale_errors()
    monkeypatch.setattr(layer_module, "search_scale", lambda *args: search_scale(*args[:-1]))
    monkeypatch.setattr(
        layer_module, "round_jobs", lambda problem, jobs, settle, *_: ROUND(problem, jobs, partial(storable, tied=False))
    )
    assert scale_errors() > 1.2 * made


ROUND = layer_module.round_jobs


def scale_errors() -> float:
    """Relative output error of a small layer whose scales, whatever was fitted, are stored as powers of two."""
    one = case(3, rows=12, width=16, samples=400)
    layout = layer_module.RowLayout((12, 16, 1, 1), 0, 1, 12, 16, 1, False)
    worker = layer_module.LayerRecovery(layout, one.weight, np.zeros(12), one.statistics, True, power_of_two=True)
    rows = worker.build(layer_module.Setting(4))
    assert rows.scale is not None
    values = rows.codes.astype(np.float64) * storable(rows.scale.astype(np.float64), False, True)[:, :, None]
    return float(output_error(one, values, one.x - one.x.mean(axis=1)).sum())


@pytest.mark.parametrize("high", [1, 3, 7, 127])
def test_a_refitted_scale_goes_to_the_better_power(high: int) -> None:
    one = case(5, groups=2, rows=8)
    problem = quadratic(one)
    first = search_scale(one.weight, np.ones((2, 7)), -high, high, power_of_two=True)
    assert np.all(np.frexp(first)[0] == 0.5)
    codes = np.clip(np.rint(one.weight / first[:, :, None]), -high, high)
    free = refit_scale(codes, first, problem.target, problem.matrix)
    chosen = storable(free, False, power_of_two=True)
    for power in (np.exp2(np.floor(np.log2(free))), np.exp2(np.ceil(np.log2(free)))):
        assert np.all(problem.error(codes * chosen[:, :, None]) <= problem.error(codes * power[:, :, None]) * (1 + 1e-9))


@pytest.mark.parametrize("high", [1, 3, 7, 127])
def test_the_first_power_is_the_best_of_all_below_the_one_that_covers(high: int) -> None:
    one = case(6, rows=8)
    importance = np.random.default_rng(0).uniform(0.1, 2.0, (1, 7))
    found = search_scale(one.weight, importance, -high, high, power_of_two=True)
    covers = search_scale(one.weight, importance, -high, high, steps=1, power_of_two=True)
    assert np.all(covers * high >= np.abs(one.weight).max(axis=2) - 1e-12)

    def error(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        back = np.clip(np.rint(one.weight / scale[:, :, None]), -high, high) * scale[:, :, None]
        return np.einsum("grd,gd->gr", (one.weight - back) ** 2, importance)

    least = np.min([error(covers / 2.0**down) for down in range(12)], axis=0)
    np.testing.assert_allclose(error(found), least, rtol=1e-9)


def test_channels_of_zeros_and_biases_beyond_32_bits_keep_powers_of_two() -> None:
    assert storable(np.array([[0.0, 3.0, 0.25]]), False, True).tolist() == [[2.0, 4.0, 0.25]]
    floor = layer_weights._next_power(np.array([0.0, 0.3, 0.5], np.float32))
    assert floor.tolist() == [0.0, 0.5, 0.5] and floor.dtype == np.float32


@pytest.fixture
def without_zero_points(monkeypatch: pytest.MonkeyPatch) -> str:
    """A dialect that is ONNX Runtime's but for zero points, which it does not allow."""
    strict = replace(ORT, name="strict", zero_points=False)
    monkeypatch.setattr(dialects, "DIALECTS", {"ort": ORT, "strict": strict})
    return "strict"


@pytest.mark.parametrize(
    ("name", "ranges"), [*((name, "mse") for name in MODELS), *(("chain", method) for method in METHODS if method != "mse")]
)
def test_a_dialect_without_zero_points_gets_symmetric_activations(
    name: str, ranges: str, without_zero_points: str
) -> None:
    model = MODELS[name]
    plan = api.uniform_plan(model, "w8a8").model_copy(update={"dialect": without_zero_points})
    found = api.apply_plan(model, plan=plan, data=data(model), ranges=ranges, recovery="ranges", metric="sqnr")
    tensors = {tensor.name: tensor for tensor in found.proto.graph.initializer}
    zeros = [tensors[node.input[2]] for node in found.proto.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros and all(numpy_helper.to_array(zero) == 0 for zero in zeros)
    assert all(zero.data_type == onnx.TensorProto.INT8 for zero in zeros)
    assert api.profile(found.proto).cost.total == pytest.approx(found.cost.total, rel=1e-9)
    assert found.evaluation is not None and math.isfinite(found.evaluation.drop_points)


def test_a_database_that_ignores_the_dialect_is_noticed(
    monkeypatch: pytest.MonkeyPatch, without_zero_points: str
) -> None:
    """Broken twin: free zero points for a dialect that has none."""
    from hwc_onnx import workspace

    model = MODELS["chain"]
    plan = api.uniform_plan(model, "w8a8").model_copy(update={"dialect": without_zero_points})
    monkeypatch.setattr(workspace, "get_dialect", lambda name: ORT)
    with pytest.raises(PlanError, match="allows only 0"):
        api.apply_plan(model, plan=plan, data=data(model), recovery="ranges")
