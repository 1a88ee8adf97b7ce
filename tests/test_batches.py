"""Where samples lie in a batch: fixed batches, tokens folded into the first axis, products from the other side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx.accuracy.collector import collect
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError, ModelError
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from hwc_onnx.recovery.patches import Along, along_batch
from tests import tiny_models
from tests.tiny_models import Builder

SAMPLES = 320


def fixed(size: int) -> onnx.ModelProto:
    model = tiny_models.chain()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return model


def tokens(first: int = 12) -> onnx.ModelProto:
    """Sixteen tokens of each sample are rows of one matrix, as exporters from TensorFlow write them."""
    b = Builder(["batch", 16, first])
    t = b.node("Reshape", "x", b.const([-1, first], np.int64))
    t = b.node("Relu", b.gemm(t, first, 10))
    t = b.node("Reshape", b.gemm(t, 10, 6), b.const([-1, 96], np.int64))
    return b.finish(b.gemm(t, 96, 5), ["batch", 5])


def turned() -> onnx.ModelProto:
    """The batch is the last axis of what a Gemm and a MatMul read."""
    b = Builder(["batch", 12])
    t = b.node("Transpose", b.node("Relu", b.gemm("x", 12, 10)), perm=[1, 0])
    t = b.node("Relu", b.node("Gemm", t, b.weight(10, 8), b.vector(8), transA=1))
    t = b.node("MatMul", b.weight(6, 8), b.node("Transpose", t, perm=[1, 0]))
    return b.finish(b.gemm(b.node("Transpose", t, perm=[1, 0]), 6, 5), ["batch", 5])


def sequence_first() -> onnx.ModelProto:
    b = Builder(["batch", 6, 12])
    t = b.node("Transpose", "x", perm=[1, 0, 2])
    t = b.node("Transpose", b.linear(b.node("Relu", b.linear(t, 12, 10)), 10, 6), perm=[1, 0, 2])
    return b.finish(b.gemm(b.node("Flatten", t, axis=1), 36, 5), ["batch", 5])


def windows() -> onnx.ModelProto:
    """Four windows of each image pass through a Conv as images of their own."""
    b = Builder(["batch", 4, 3, 6, 6])
    t = b.node("Reshape", "x", b.const([-1, 3, 6, 6], np.int64))
    t = b.node("Relu", b.conv(t, 3, 8))
    t = b.node("Reshape", b.node("GlobalAveragePool", t), b.const([-1, 32], np.int64))
    return b.finish(b.gemm(t, 32, 5), ["batch", 5])


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tokens": tokens, "turned": turned, "sequence first": sequence_first, "windows": windows,
    "fixed batch of 1": lambda: fixed(1), "fixed batch of 3": lambda: fixed(3), "fixed batch of 16": lambda: fixed(16),
}  # fmt: skip


def samples_of(model: onnx.ModelProto, count: int = SAMPLES) -> dict[str, np.ndarray]:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(1).normal(size=(count, *shape[1:])).astype(np.float32)}


@pytest.mark.parametrize("recovery", ["full", "sequential"])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_batch_is_quantized_and_pruned(form: str, recovery: str, tmp_path: Path) -> None:
    model = FORMS[form]()
    path, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnx.save(model, path)
    np.savez(data, **samples_of(model))
    plan = hwc_onnx.uniform_plan(path, "w4a8,fine=magnitude:0.3")
    applied = hwc_onnx.apply_plan(path, plan=plan, data=data, metric="cosine", recovery=recovery)
    assert applied.evaluation is not None and applied.evaluation.value > 0.9


@pytest.mark.parametrize("form", FORMS)
def test_no_sample_is_fitted_to_and_judged_by(form: str) -> None:
    """The samples to judge by are ten times as large: none of them is among the patches fitted to."""
    proto = normalize(FORMS[form]())
    graph = parse(proto)
    x = samples_of(proto)["x"]
    marked = x.copy()
    marked[SAMPLES - SAMPLES // 4 :] *= 10.0
    rng = [np.random.default_rng(0) for _ in range(2)]
    plain, found = (collect(proto, graph, Samples({"x": array}, None), rng=r) for array, r in zip((x, marked), rng, strict=True))
    first = next(key for key in plain.layers)
    assert np.array_equal(plain.layers[first].fit.gram, found.layers[first].fit.gram)
    power = [np.trace(made.layers[first].heldout.gram, axis1=1, axis2=2).sum() for made in (plain, found)]
    assert power[1] == pytest.approx(100.0 * power[0], rel=1e-3)
    fit, heldout = plain.layers[first].fit.rows, plain.layers[first].heldout.rows
    assert heldout == pytest.approx(fit / 3, rel=0.2)


def test_tokens_of_a_sample_are_sampled() -> None:
    proto = normalize(tokens())
    rng = np.random.default_rng(0)
    found = collect(proto, parse(proto), Samples(samples_of(proto), None), gram_rows=480, rng=rng)
    first = next(iter(found.layers.values()))
    assert (first.fit.rows, first.heldout.rows) == (2 * 240, 2 * 80)


@pytest.mark.parametrize(
    ("shape", "declared", "count", "fixed", "expected"),
    [
        ((8, 3, 6, 6), (1, 3, 6, 6), 8, None, Along(0, 1)),
        ((128, 12), (16, 12), 8, None, Along(0, 16)),
        ((10, 8), (10, 1), 8, None, Along(1, 1)),
        ((6, 8, 12), (6, 1, 12), 8, None, Along(1, 1)),
        ((1, 3), (1, 3), 1, None, Along(0, 1)),
        ((5, 5), (5, 5), 8, None, None),
        ((8, 8), (1, 1), 8, None, None),
        ((4, 3, 6, 6), (4, 3, 6, 6), 4, 4, Along(0, 1)),
        ((64, 12), (64, 12), 4, 4, Along(0, 16)),
        ((6, 4, 10), (6, 4, 10), 4, 4, Along(1, 1)),
        ((6, 4, 12), (6, 4, 12), 4, 4, None),
        ((3,), (2, 3), 4, None, None),
    ],
)
def test_the_axis_that_follows_the_batch(
    shape: tuple[int, ...], declared: tuple[int, ...], count: int, fixed: int | None, expected: Along | None
) -> None:
    assert along_batch(shape, declared, count, fixed) == expected


def test_a_fixed_batch_that_is_not_filled_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnx.save(fixed(128), path)
    np.savez(data, **samples_of(fixed(128)))
    for recovery in ("none", "full"):
        with pytest.raises(DataError, match="fixed batch of 128 and there are 80 calibration samples; give at least 128"):
            plan = hwc_onnx.uniform_plan(path, "w8a8")
            hwc_onnx.apply_plan(path, plan=plan, data=data, metric="cosine", recovery=recovery)


def test_the_sample_that_gives_no_number_is_named_as_in_the_source(tmp_path: Path) -> None:
    path, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    b = Builder(["batch", 3, 8, 8])
    t = b.node("Log", b.node("Abs", "x"))
    t = b.node("Relu", b.conv(t, 3, 8))
    onnx.save(b.finish(b.gemm(b.node("Flatten", b.node("GlobalAveragePool", t), axis=1), 8, 5), ["batch", 5]), path)
    x = np.random.default_rng(1).normal(size=(SAMPLES, 3, 8, 8)).astype(np.float32)
    plan = hwc_onnx.uniform_plan(path, "w8a8")
    for place in range(SAMPLES):
        x[place, 0, 0, 0] = 0.0  # all of them, so whichever comes first is named by its own number
    np.savez(data, x=x)
    with pytest.raises((DataError, ModelError), match=r"sample \d+ of the data, counted from 0"):
        hwc_onnx.apply_plan(path, plan=plan, data=data, metric="cosine")
    x[:] = np.abs(x) + 0.1
    x[57, 0, 0, 0] = 0.0
    np.savez(data, x=x)
    with pytest.raises((DataError, ModelError), match="sample 57 of the data, counted from 0"):
        hwc_onnx.apply_plan(path, plan=plan, data=data, metric="cosine")


def test_labels_that_do_not_belong_to_the_samples_are_doubted(tmp_path: Path) -> None:
    path, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    model = tiny_models.chain()
    onnx.save(model, path)
    x = samples_of(model, 600)["x"]
    answers = tiny_models.run(model, {"x": x})[0].argmax(axis=1)
    plan = hwc_onnx.uniform_plan(path, "w8a8")
    for labels, doubted in ((answers, False), (np.random.default_rng(0).permutation(answers), True)):
        np.savez(data, x=x, y=labels.astype(np.int64))
        applied = hwc_onnx.apply_plan(path, plan=plan, data=data)
        assert any("says nothing" in note for note in applied.notes) is doubted
