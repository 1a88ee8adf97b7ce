"""The last two axes swapped by way of fewer axes, as PyTorch writes the keys of an attention with a dynamic batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def attention(swapped: tuple[int, ...] = (0, 2, 1)) -> onnx.ModelProto:
    """Three heads of 4 channels; the keys lose the batch axis on their way to the product."""
    b = Builder(["batch", 5, 12])

    def heads(x: str) -> str:
        split = b.node("Reshape", b.linear(x, 12, 12), b.const([0, 5, 3, 4], np.int64))
        return str(b.node("Transpose", split, perm=[0, 2, 1, 3]))

    query, key, value = heads("x"), heads("x"), heads("x")
    sizes = b.node("Shape", key)
    batch = b.node("Slice", sizes, b.const([0], np.int64), b.const([2], np.int64))
    flat = b.node("Transpose", b.node("Reshape", key, b.const([-1, 5, 4], np.int64)), perm=list(swapped))
    shape = b.node("Concat", batch, b.const([4, 5], np.int64), axis=0)
    scores = b.node("Softmax", b.node("MatMul", query, b.node("Reshape", flat, shape)), axis=-1)
    joined = b.node("Transpose", b.node("MatMul", scores, value), perm=[0, 2, 1, 3])
    return b.finish(b.linear(b.node("Reshape", joined, b.const([0, 5, 12], np.int64)), 12, 6))


def test_a_swap_by_way_of_fewer_axes_is_a_transpose_and_heads_can_go() -> None:
    model = attention()
    after = normalize(model)
    assert not {"Shape", "Concat"} & {node.op_type for node in after.graph.node}
    for batch in (1, 2, 5):
        values = tiny_models.feeds(model, batch, seed=1)
        np.testing.assert_allclose(tiny_models.run(after, values)[0], tiny_models.run(model, values)[0], rtol=1e-5, atol=1e-6)
    groups = [group for group in parse(after).channel_groups if len(group.producers) > 1]
    assert len(groups) == 1 and groups[0].locked_because is None


@pytest.mark.parametrize("order", [(1, 2, 0), (0, 1, 2)])
def test_other_moves_stay(order: tuple[int, ...]) -> None:
    b = Builder(["batch", 3, 4, 4])
    flat = b.node("Transpose", b.node("Reshape", "x", b.const([-1, 4, 4], np.int64)), perm=list(order))
    model = b.finish(b.node("Reshape", flat, b.const([-1, 3, 4, 4], np.int64)))
    after = normalize(model)
    values = tiny_models.feeds(model, 2, seed=1)
    np.testing.assert_array_equal(tiny_models.run(after, values)[0], tiny_models.run(model, values)[0])


def test_heads_of_a_joint_layer_are_followed_though_all_its_inputs_can_go() -> None:
    """Query, key and value are cut from one layer: its first axis tells them apart, and is no channel that can go."""
    b = Builder(["batch", 5, 12])
    first = b.linear("x", 12, 12)
    joint = b.node("Reshape", b.linear(first, 12, 36), b.const([0, 5, 3, 3, 4], np.int64))
    moved = b.node("Transpose", joint, perm=[2, 0, 3, 1, 4])
    query, key, value = (b.node("Gather", moved, b.const(place, np.int64), axis=0) for place in range(3))
    scores = b.node("Softmax", b.node("MatMul", query, b.node("Transpose", key, perm=[0, 1, 3, 2])), axis=-1)
    joined = b.node("Transpose", b.node("MatMul", scores, value), perm=[0, 2, 1, 3])
    second = b.linear(b.node("Reshape", joined, b.const([0, 5, 12], np.int64)), 12, 12)
    model = b.finish(b.linear(b.node("Add", first, second), 12, 6))
    groups = parse(normalize(model)).channel_groups
    assert [(group.channels, group.locked_because is None) for group in groups] == [(12, True), (3, True), (6, False)]
