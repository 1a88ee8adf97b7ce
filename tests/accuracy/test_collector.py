"""Calibration says what it cannot rely on, and names the node and the sample of values that are not numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.accuracy.collector import Calibration, collect
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder, head


def collected(model: onnx.ModelProto, x: np.ndarray) -> Calibration:
    proto = normalize(model)
    return collect(proto, parse(proto), Samples({"x": x}, None), threads=1, rng=np.random.default_rng(0))


def logarithm() -> onnx.ModelProto:
    """Conv, then a Log that has no value for what is below -10."""
    b = Builder(["batch", 3, 8, 8])
    shifted = b.node("Add", b.conv("x", 3, 6), b.const(10.0))
    return head(b, b.conv(b.node("Log", shifted), 6, 4), 4)


def test_a_sample_that_gives_no_number_is_named_with_its_node() -> None:
    x = tiny_models.feeds(logarithm(), 16)["x"]
    x[11] = 1e3 * np.sign(x[11])
    with pytest.raises(DataError, match=r"calibration sample 11 of the data, counted from 0: Log 'log\d+' gives values that are NaN or infinite"):
        collected(logarithm(), x)


def test_numbers_everywhere_are_taken() -> None:
    """Twin of the above."""
    x = tiny_models.feeds(logarithm(), 16)["x"]
    assert collected(logarithm(), x).samples == 16


def test_progress_counts_samples_up_to_all_of_them() -> None:
    proto, told = normalize(logarithm()), []
    samples = Samples({"x": tiny_models.feeds(logarithm(), 16)["x"]}, None)
    collect(proto, parse(proto), samples, threads=1, batch=4, rng=np.random.default_rng(0), on_event=told.append)
    counts = [step.done for step in told]
    assert counts == sorted(counts) and counts[-1] == 16 and len(set(counts)) > 2
    assert {step.total for step in told} == {16}


def test_layers_seen_with_fewer_patches_than_inputs_are_counted() -> None:
    made = tiny_models.flatten_gemm()
    (few,) = [text for text in collected(made, tiny_models.feeds(made, 16)["x"]).remarks() if "patches" in text]
    assert few.startswith("1 of 3 layers") and "12 of 96" in few
    assert not any("patches" in text for text in collected(made, tiny_models.feeds(made, 256)["x"]).remarks())


def test_tensors_that_never_vary_are_counted() -> None:
    b = Builder(["batch", 3, 8, 8])
    dead = b.node("Relu", b.node("Sub", b.node("Relu", b.conv("x", 3, 6)), b.const(1e6)))
    model = head(b, b.conv(dead, 6, 4), 4)
    x = tiny_models.feeds(model, 16)["x"]
    assert any("one value on all calibration samples" in text for text in collected(model, x).remarks())
    lively = tiny_models.chain()
    assert not any("one value" in text for text in collected(lively, tiny_models.feeds(lively, 16)["x"]).remarks())


def test_layers_that_cannot_be_repaired_are_named_with_the_reason() -> None:
    b = tiny_models.Builder(["batch", 2, 4, 6, 6])
    t = b.node("Relu", b.node("Conv", "x", b.weight(8, 2, 3, 3, 3), b.vector(8), pads=[1] * 6))
    t = b.node("Flatten", b.node("GlobalAveragePool", t), axis=1)
    model = normalize(b.finish(b.gemm(t, 8, 5), ["batch", 5]))
    x = np.random.default_rng(0).normal(size=(16, 2, 4, 6, 6)).astype(np.float32)
    found = collect(model, parse(model), Samples({"x": x}, None), rng=np.random.default_rng(0))
    assert list(found.unseen.values()) == ["Conv with more than two kernel axes"] and len(found.layers) == 1
    (said,) = [line for line in found.remarks() if "not repaired" in line]
    assert said.startswith("1 of 2 layers: rounded and pruned, not repaired: Conv with more than two kernel axes")


def test_inputs_whose_squares_leave_single_precision_are_refused() -> None:
    model = normalize(tiny_models.chain())
    x = tiny_models.feeds(model, 16)["x"] * np.float32(1e18)
    with pytest.raises(DataError, match="its input has values up to"):
        collect(model, parse(model), Samples({"x": x}, None), rng=np.random.default_rng(0))


def test_labels_are_not_part_of_what_calibration_learns() -> None:
    proto = normalize(logarithm())
    x = tiny_models.feeds(logarithm(), 64)["x"]
    digests = {
        collect(proto, parse(proto), Samples({"x": x}, labels), threads=1, rng=np.random.default_rng(0)).digest()
        for labels in (None, np.zeros(64, np.int64), np.arange(64) % 4)
    }
    assert len(digests) == 1
    shifted = Samples({"x": x * np.float32(1.01)}, None)
    assert collect(proto, parse(proto), shifted, threads=1, rng=np.random.default_rng(0)).digest() not in digests


def test_the_first_node_that_makes_values_which_are_not_numbers_is_named() -> None:
    """The root of a negative number is several nodes before the layer that reads it."""
    b = tiny_models.Builder(["n", 3, 4, 4])
    t = b.node("Sqrt", b.node("Add", "x", b.const(np.float32([[[[0.5]]]]))))
    model = b.finish(b.conv(b.node("Relu", b.node("Mul", t, b.const(np.float32(2.0)))), 3, 4, (1, 1)))
    graph = parse(model)
    x = np.abs(np.random.default_rng(0).normal(size=(32, 3, 4, 4))).astype(np.float32)
    x[20] = -5.0
    with pytest.raises(DataError, match=r"sample 20 .*Sqrt"):
        collect(model, graph, Samples({"x": x}, None), rng=np.random.default_rng(0))


def test_inputs_that_were_always_zero_are_counted() -> None:
    b = tiny_models.Builder(["n", 6, 4, 4])
    model = b.finish(b.conv("x", 6, 4, (1, 1)))
    x = np.random.default_rng(0).normal(size=(64, 6, 4, 4)).astype(np.float32)
    said = collect(model, parse(model), Samples({"x": x}, None), rng=np.random.default_rng(0)).remarks()
    assert not any("always zero" in text for text in said)
    x[:, [1, 4]] = 0.0
    said = collect(model, parse(model), Samples({"x": x}, None), rng=np.random.default_rng(0)).remarks()
    assert any("1 of 1 layers: some inputs were always zero" in text and "2 of 6" in text for text in said)
