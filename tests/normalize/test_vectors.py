"""Products with a constant vector compute the same as products with a matrix, and are layers then."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def vector_on_the_right(opset: int = 17) -> onnx.ModelProto:
    b = Builder(["batch", 6, 12], opset=opset)
    t = b.node("Relu", b.linear("x", 12, 10))
    return b.finish(b.gemm(b.node("MatMul", t, b.vector(10)), 6, 5), ["batch", 5])


def vector_on_the_left() -> onnx.ModelProto:
    b = Builder(["batch", 6, 12])
    t = b.node("Relu", b.linear("x", 12, 10))
    return b.finish(b.gemm(b.node("MatMul", b.vector(6), t), 10, 5), ["batch", 5])


@pytest.mark.parametrize("make", [vector_on_the_right, vector_on_the_left])
def test_a_product_with_a_vector_is_a_layer_of_one_output(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    written = normalize(model)
    feeds = tiny_models.feeds(model, 4)
    np.testing.assert_allclose(tiny_models.run(written, feeds)[0], tiny_models.run(model, feeds)[0], rtol=1e-5, atol=1e-6)
    layer = next(layer for layer in parse(written).layers if 1 in layer.weight_shape)
    assert layer.weight_shape[layer.output_axis] == 1
    twice = normalize(written)
    assert [node.op_type for node in twice.graph.node] == [node.op_type for node in written.graph.node]


@pytest.mark.parametrize("make", [vector_on_the_right, vector_on_the_left])
def test_it_is_quantized_with_one_scale_and_pruned(make, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnx.save(make(), path)
    np.savez(data, x=np.random.default_rng(0).normal(size=(320, 6, 12)).astype(np.float32))
    for spec in ("w3a8", "w8a8,coarse=l1:0.3"):
        applied = hwc_onnx.apply_plan(path, plan=hwc_onnx.uniform_plan(path, spec), data=data, metric="cosine")
        assert applied.evaluation is not None and applied.evaluation.value > 0.8
    tensors = {tensor.name: tensor for tensor in applied.proto.graph.initializer}
    scales = [tensors[node.input[1]] for node in applied.proto.graph.node if node.input[0] in tensors]
    assert len(scales) == 3 and any(list(tensor.dims) in ([1], []) for tensor in scales)
