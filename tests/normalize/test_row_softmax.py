"""Softmax of older opsets: over the last axis its operand keeps its axes, over others it stays a matrix."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def attention(axis: int, op: str = "Softmax") -> onnx.ModelProto:
    """Two heads of 4 features at opset 11, as exporters wrote them."""
    b = Builder(["batch", 6, 8], opset=11)

    def heads(order: list[int]) -> str:
        parts = b.node("Reshape", b.linear("x", 8, 8), b.const([0, 6, 2, 4], np.int64))
        return str(b.node("Transpose", parts, perm=order))

    shares = b.node(op, b.node("MatMul", heads([0, 2, 1, 3]), heads([0, 2, 3, 1])), axis=axis)
    y = b.node("Transpose", b.node("MatMul", shares, heads([0, 2, 1, 3])), perm=[0, 2, 1, 3])
    model = b.finish(b.linear(b.node("Reshape", y, b.const([0, 6, 8], np.int64)), 8, 5))
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize(("axis", "op"), [(3, "Softmax"), (-1, "Softmax"), (3, "LogSoftmax"), (2, "Softmax")])
def test_softmax_of_an_older_opset_computes_the_same(axis: int, op: str) -> None:
    model = attention(axis, op)
    found = normalize(model)
    feeds = tiny_models.feeds(model)
    np.testing.assert_allclose(tiny_models.run(found, feeds)[0], tiny_models.run(model, feeds)[0], rtol=1e-5, atol=1e-5)
    wrapped = any(node.op_type == "Flatten" for node in found.graph.node)
    assert wrapped == (axis == 2)


def test_heads_of_an_older_opset_can_go() -> None:
    group = parse(normalize(attention(3))).group_of("t0")
    assert group is not None and group.locked_because is None and group.channels == 2 and len(group.producers) == 3
