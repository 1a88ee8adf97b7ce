"""How many samples are made up."""

from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.accuracy import sample_budget
from hwc_onnx.accuracy.datasets import load_data
from hwc_onnx.accuracy.inputs import InputSpec, input_specs
from hwc_onnx.accuracy.sample_budget import macs_per_sample, sample_count
from hwc_onnx.accuracy.splits import MINIMUM, make_splits
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests.tiny_models import Builder

FLOAT = np.dtype(np.float32)


def network(batch: int | str = "n", side: int = 12):
    """A Conv, a strided one, a depthwise one, a ConvTranspose, a MatMul and a Gemm."""
    build = Builder([batch, 3, side, side])
    x = build.node("Relu", build.conv("x", 3, 8))
    x = build.node("Relu", build.conv(x, 8, 8, strides=[2, 2]))
    x = build.node("Relu", build.conv(x, 8, 8, group=8))
    x = build.node("ConvTranspose", x, build.weight(8, 4, 2, 2), strides=[2, 2])
    x = build.node("Transpose", build.node("Relu", x), perm=[0, 2, 3, 1])
    x = build.node("Relu", build.linear(x, 4, 6))
    x = build.node("ReduceMean", x, axes=[1, 2], keepdims=0)
    return normalize(build.finish(build.gemm(x, 6, 5)))


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_macs_per_sample_are_those_of_the_layer_graph(batch):
    model = network(batch)
    expected = sum(layer.macs for layer in parse(model).layers)
    assert macs_per_sample(model, input_specs(model)) == expected // (batch if isinstance(batch, int) else 1)


def test_sample_count_stays_within_the_budget(monkeypatch):
    model = network()
    specs, macs = input_specs(model), macs_per_sample(network(), input_specs(network()))
    assert sample_count(specs, model) == (sample_budget.SMALL_COUNT, "")
    monkeypatch.setattr(sample_budget, "MAC_BUDGET", 700 * macs + 1)
    count, reason = sample_count(specs, model)
    assert count == 700 and "700 of 2,048 samples" in reason and "multiply-accumulates" in reason
    monkeypatch.setattr(sample_budget, "MAC_BUDGET", 1)
    assert sample_count(specs, model)[0] == sample_budget.FEWEST
    data = load_data("synthetic", specs, model=model)
    splits = make_splits(data)
    assert len(data.pool) == sample_budget.FEWEST and "256 of 2,048 samples" in data.notes[0]
    assert min(map(len, (splits.calibration, splits.search, splits.holdout))) >= MINIMUM


def test_sample_count_asked_for_is_kept(monkeypatch):
    monkeypatch.setattr(sample_budget, "MAC_BUDGET", 1)
    assert len(load_data("synthetic:400", input_specs(network()), model=network()).pool) == 400


@pytest.mark.parametrize(("spec", "each"), [
    (InputSpec("x", (None, 40), FLOAT), 160),
    (InputSpec("x", (None, 3, 20, 20), FLOAT), 1200),
    (InputSpec("x", (None, 50), np.dtype(np.int64)), 400),
])  # fmt: skip
def test_sample_count_stays_within_memory(spec, each, monkeypatch):
    monkeypatch.setattr(sample_budget, "SYNTHETIC_BYTES", 500 * each)
    count, reason = sample_count([spec], None)
    assert count == 500 and "500 of 2,048 samples" in reason and "MiB" in reason
    made = load_data("synthetic", [spec]).pool
    assert len(made) == 500


def test_sample_count_of_large_inputs():
    assert sample_count([InputSpec("x", (None, 3, 224, 224), FLOAT)], None) == (sample_budget.LARGE_COUNT, "")
