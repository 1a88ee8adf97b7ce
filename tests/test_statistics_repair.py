"""Channel statistics brought back: planted shifts are undone, chance is not, and the formulas are those of the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from hwc_onnx.accuracy.types import Samples
from hwc_onnx.database import Stitched
from hwc_onnx.quantization.quantizer import QuantParams
from hwc_onnx.rewrite.channel_repair import LEAN, ChannelTarget, mending, with_means
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.statistics_repair import StatisticsRepair
from hwc_onnx.uniform import parse_spec, uniform
from tests import tiny_models
from tests.pruning.prepared import Prepared, prepare

IMAGES = 64
MODELS = ("chain", "residual", "depthwise", "flatten_gemm", "mlp_block", "attention", "conv_transpose", "grouped")


def repair_of(made: Prepared, samples: Samples | None = None) -> StatisticsRepair:
    return StatisticsRepair(made.proto, made.graph, made.database, samples or made.samples, threads=1)


def planted(stitched: Stitched, key: str, shift: float, factor: float) -> Stitched:
    """The plan with one layer's outputs shifted and stretched."""
    weight = stitched.weights[key]
    assert weight.params is not None and weight.bias is not None
    p = weight.params
    params = QuantParams((p.scale * factor).astype(np.float32), p.zero_point, p.bits, p.signed, p.axis)
    moved = replace(weight, params=params, bias=(weight.bias * factor + shift).astype(np.float32))
    return replace(stitched, weights={**stitched.weights, key: moved})


def outputs(made: Prepared, stitched: Stitched) -> np.ndarray:
    carrier = stitched.float_model(made.proto, made.graph)
    model = insert_qdq(carrier, made.graph, stitched.weights, stitched.activations, "ort", "measure")
    return tiny_models.run(model, {"x": made.x})[0]


def error(made: Prepared, stitched: Stitched) -> float:
    expected = tiny_models.run(made.proto, {"x": made.x})[0]
    return float(np.square(outputs(made, stitched) - expected).mean() / np.square(expected - expected.mean(0)).mean())


@pytest.mark.parametrize("model", MODELS)
def test_a_planted_shift_is_undone(model: str) -> None:
    made = prepare(tiny_models.ALL[model], images=IMAGES)
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w8a8")))
    key = next(k for k, w in stitched.weights.items() if w.bias is not None and w.params is not None)
    broken = planted(stitched, key, 0.5, 1.3)
    repair = repair_of(made)
    assert repair.possible
    assert error(made, broken) > 20 * error(made, stitched)
    assert error(made, repair(broken)) < 0.1 * error(made, broken)


@pytest.mark.parametrize("model", MODELS)
def test_a_planted_shift_is_undone_in_a_layer_that_stays_in_float(model: str) -> None:
    made = prepare(tiny_models.ALL[model], images=IMAGES)
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w16a16,fine=magnitude:0.1")))
    key = next(k for k, w in stitched.weights.items() if w.bias is not None and w.params is None)
    weight = stitched.weights[key]
    assert weight.bias is not None
    moved = replace(weight, codes=weight.codes * np.float32(1.3), bias=weight.bias * np.float32(1.3) + np.float32(0.5))
    broken = replace(stitched, weights={**stitched.weights, key: moved})
    mended = repair_of(made)(broken)
    assert error(made, broken) > 20 * error(made, stitched)
    assert error(made, mended) < 0.1 * error(made, broken)
    assert all(w.codes.dtype == np.float32 for w in mended.weights.values() if w.params is None)
    # zeros stay where they were
    for name, before in broken.weights.items():
        np.testing.assert_array_equal(mended.weights[name].codes == 0, before.codes == 0)


def test_layers_in_float_that_compute_the_original_keep_every_bit() -> None:
    made = prepare(tiny_models.chain, images=IMAGES)
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w16a16")))
    mended = repair_of(made)(stitched)
    for key, weight in stitched.weights.items():
        np.testing.assert_array_equal(mended.weights[key].codes, weight.codes)


def test_a_repair_that_forgets_the_shift_is_noticed() -> None:
    """Broken twin: biases stay as they were."""
    made = prepare(tiny_models.chain, images=IMAGES)
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w8a8")))
    broken = planted(stitched, next(iter(stitched.weights)), 0.5, 1.3)
    mended = repair_of(made)(broken)
    halfway = {key: replace(weight, bias=broken.weights[key].bias) for key, weight in mended.weights.items()}
    assert error(made, replace(mended, weights=halfway)) > 0.2 * error(made, broken)


@pytest.mark.parametrize("spec", ["w2a8,fine=magnitude:0.5", "w3a8,coarse=l1:0.3"])
def test_pruned_plans_are_mended_in_the_channels_that_are_left(spec: str) -> None:
    made = prepare(tiny_models.residual, images=IMAGES)
    stitched = made.database.stitch(uniform(made.graph, parse_spec(spec)))
    mended = repair_of(made)(stitched)
    assert {key: weight.codes.shape for key, weight in mended.weights.items()} == {
        key: weight.codes.shape for key, weight in stitched.weights.items()
    }
    expected = tiny_models.run(made.proto, {"x": made.x})[0].mean(axis=0)
    before, after = (np.abs(outputs(made, plan).mean(axis=0) - expected).max() for plan in (stitched, mended))
    assert after < 0.75 * before


def test_an_unchanged_network_stays_as_it_is() -> None:
    made = prepare(tiny_models.chain, images=IMAGES)
    plan = uniform(made.graph, parse_spec("w8a8"))
    stitched = made.database.stitch(plan)
    mended = repair_of(made)(stitched)
    for key, weight in stitched.weights.items():
        assert weight.params is not None and mended.weights[key].params is not None
        np.testing.assert_allclose(mended.weights[key].params.scale, weight.params.scale, rtol=0.01)


def test_too_few_samples_leave_the_plan_alone() -> None:
    made = prepare(tiny_models.chain, images=IMAGES)
    stitched = made.database.stitch(uniform(made.graph, parse_spec("w3a8")))
    few = repair_of(made, made.samples.take(slice(0, 8)))
    assert not few.possible and few(stitched) is stitched


def test_a_model_of_one_image_a_run_is_run_on_all_where_its_nodes_allow_it() -> None:
    made = prepare(tiny_models.chain, images=IMAGES)
    proto = onnx.ModelProto()
    proto.CopyFrom(made.proto)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    repair = StatisticsRepair(proto, made.graph, made.database, made.samples, threads=1)
    assert repair.possible


def test_formulas_against_numpy() -> None:
    """Shift, factor and the mended tensor of one Conv, written out."""
    b = tiny_models.Builder(["batch", 3, 6, 6])
    proto = b.finish(b.conv("x", 3, 4))
    x = tiny_models.feeds(proto, 20, seed=3)
    (y,) = tiny_models.run(proto, x)
    rng = np.random.default_rng(0)
    means = y.mean(axis=(2, 3)) + rng.normal([0.0, 0.02, 0.5, -1.0], 0.3, (20, 4)).astype(np.float32)
    variance = y.var(axis=(0, 2, 3)) * np.array([1.0, 0.5, 2.0, 30.0], np.float32)
    model, names = mending(proto, {"y": ChannelTarget(means.astype(np.float32), variance, 4, 1)})
    mended, mean, shift, factor = tiny_models.run(model, x, ["y", *names])
    d = y.mean(axis=(2, 3)) - means
    chance = d.var(axis=0) / 19
    certain = np.maximum(0.0, 1.0 - chance / d.mean(axis=0) ** 2)
    e = LEAN * variance.mean()
    a = np.clip(np.sqrt((variance + e) / (y.var(axis=(0, 2, 3)) + e)), 0.5, 2.0)
    np.testing.assert_allclose(shift.reshape(-1), certain * d.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(factor.reshape(-1), a, rtol=1e-4)
    m = y.mean(axis=(0, 2, 3)).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(mean, m, rtol=1e-3, atol=1e-5)
    expected = (y - m) * a.reshape(1, 4, 1, 1) + m - shift
    np.testing.assert_allclose(mended, expected, rtol=1e-3, atol=1e-4)
    assert certain.min() < 0.7 and certain.max() > 0.95  # chance is left alone, what is certain is not


@pytest.mark.parametrize("opset", [13, 18])
def test_means_are_taken_at_old_and_new_opsets(opset: int) -> None:
    b = tiny_models.Builder(["batch", 3, 6, 6], opset=opset)
    proto = b.finish(b.conv("x", 3, 4))
    x = tiny_models.feeds(proto, 5)
    y, means, variance = tiny_models.run(*_with_names(proto, x))
    np.testing.assert_allclose(means.reshape(5, 4), y.mean(axis=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance.reshape(4), y.var(axis=(0, 2, 3)), rtol=1e-4)


def _with_names(proto: onnx.ModelProto, x: dict) -> tuple[onnx.ModelProto, dict, list[str]]:
    model, names = with_means(proto, {"y": (4, 1)})
    return model, x, ["y", *names]
