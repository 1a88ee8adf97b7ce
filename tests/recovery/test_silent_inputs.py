"""Tensors that calibration only saw zeros of: the layers behind them keep their biases."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx import database
from hwc_onnx.plan import LayerConfig
from tests import tiny_models
from tests.tiny_models import Builder


def dead_branch() -> onnx.ModelProto:
    """A branch whose last layer reads zeros only, so that its biases are all that it adds."""
    b = Builder(["n", 3, 6, 6])
    t = b.node("Relu", b.conv("x", 3, 8, (3, 3)))
    u = b.node("Relu", b.node("Conv", t, b.weight(8, 8, 3, 3), b.const(np.full(8, -50.0)), pads=[1, 1, 1, 1]))
    u = b.node("Conv", u, b.const(b.rng.normal(0, 1, (8, 8, 1, 1))), b.const(b.rng.normal(0, 0.2, 8)))
    return b.finish(b.conv(b.node("Add", t, u), 8, 5, (1, 1)))


def error_of(spec: str, how: dict[str, object]) -> float:
    """Relative error of the outputs with nothing but the layer behind the zeros compressed."""
    model = dead_branch()
    data = {"x": np.random.default_rng(0).normal(size=(256, 3, 6, 6)).astype(np.float32)}
    key = [node for node in model.graph.node if node.op_type == "Conv"][2].output[0]
    plan = hwc_onnx.uniform_plan(model, spec)
    layers = {name: config if name == key else LayerConfig(weight_bits=16, activation_bits=16) for name, config in plan.layers.items()}
    applied = hwc_onnx.apply_plan(
        model, plan=plan.model_copy(update={"layers": layers}), data=data, metric="cosine", **how
    )
    expected, found = (tiny_models.run(one, data, [one.graph.output[0].name])[0] for one in (model, applied.proto))
    assert any(node.op_type == "QuantizeLinear" for node in applied.proto.graph.node)
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("spec", ["w8a8", "w4a8", "w2a8", "w2a4"])
@pytest.mark.parametrize("how", [{"recovery": "none"}, {"recovery": "full"}, {"recovery": "sequential"}, {"power_of_two": True}])
def test_the_reader_of_zeros_keeps_its_biases(spec: str, how: dict[str, object]) -> None:
    assert error_of(spec, how) < 2e-3


def test_steps_as_large_as_the_weights_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken twin: a tensor of zeros gets scale 1, and the bias is rounded to the steps of the weights."""
    monkeypatch.setattr(database, "still_scale", lambda group, parameters: 1.0)
    assert error_of("w2a8", {"recovery": "none"}) > 0.02
