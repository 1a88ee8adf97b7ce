from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.compare import same_values
from hwc_onnx.normalize.fold import expand_target, placeholder_target
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def equal(before: onnx.ModelProto, after: onnx.ModelProto, batch: int) -> bool:
    values = tiny_models.feeds(before, batch, seed=9)
    return same_values(tiny_models.run(before, values)[0], tiny_models.run(after, values)[0])


def dim(b: Builder, x: str, axis: int) -> str:
    """One size of x, as exporters take it: Shape, Gather, Unsqueeze."""
    size = b.node("Gather", b.node("Shape", x), b.const(axis, np.int64), axis=0)
    return str(b.node("Unsqueeze", size, b.const([0], np.int64)))


def test_fold_exported_flatten_keeps_a_dynamic_batch() -> None:
    b = Builder(["batch", 3, 4, 4])
    first = b.conv("x", 3, 6)
    target = b.node("Concat", dim(b, first, 0), b.const([-1], np.int64), axis=0)
    model = b.finish(b.gemm(b.node("Reshape", first, target), 96, 5))
    after = normalize(model)
    assert [node.op_type for node in after.graph.node] == ["Conv", "Reshape", "Gemm"]
    assert all(equal(model, after, batch) for batch in (1, 2, 7))
    assert parse(after).channel_groups[0].locked_because is None


def test_fold_padding_computed_from_shape_becomes_pads_of_the_convolution() -> None:
    b = Builder(["batch", 3, 7, 7])
    first = b.conv("x", 3, 4)
    size = b.node("Cast", dim(b, first, 2), to=TensorProto.FLOAT)
    total = b.node("Sub", b.node("Mul", b.node("Ceil", b.node("Div", size, b.const(2.0))), b.const(2.0)), size)
    extra = b.node("Cast", total, to=TensorProto.INT64)
    none = b.const([0, 0, 0, 0, 0, 0], np.int64)
    pads = b.node("Concat", none, extra, extra, axis=0)
    model = tiny_models.head(
        b, b.conv(b.node("Pad", first, pads, b.const(0.0)), 4, 4, 2, strides=[2, 2], pads=[0] * 4), 4
    )
    after = normalize(model)
    assert Counter(node.op_type for node in after.graph.node)["Conv"] == 2
    assert len(after.graph.node) == 5
    assert all(equal(model, after, batch) for batch in (1, 3))


def test_fold_what_depends_on_the_batch_stays_computed() -> None:
    b = Builder(["batch", 5, 8])
    shape = b.node("Concat", dim(b, "x", 0), b.const([1, 8], np.int64), axis=0)
    token = b.node("Expand", b.weight(1, 1, 8), shape)
    model = b.finish(b.linear(b.node("Concat", token, "x", axis=1), 8, 4))
    after = normalize(model)
    assert "Expand" in {node.op_type for node in after.graph.node}
    assert all(equal(model, after, batch) for batch in (1, 2, 5))


def test_fold_expand_to_the_size_it_has_goes() -> None:
    b = Builder(["batch", 6, 8])
    first = b.linear("x", 8, 8)
    mean = b.node("Div", b.node("ReduceSum", first, b.const([1], np.int64), keepdims=1), b.const(6.0))
    shape = b.node("Concat", dim(b, first, 0), b.const([1, 8], np.int64), axis=0)
    model = b.finish(b.linear(b.node("Sub", first, b.node("Expand", mean, shape)), 8, 4))
    after = normalize(model)
    assert not {"Expand", "Shape"} & {node.op_type for node in after.graph.node}
    assert all(equal(model, after, batch) for batch in (1, 2, 5))
    assert parse(after).channel_groups[0].locked_because is None


def test_fold_expand_along_other_axes_than_the_batch_keeps_a_dynamic_batch() -> None:
    b = Builder(["batch", 8])
    first = b.node("Unsqueeze", b.gemm("x", 8, 8), b.const([1], np.int64))
    shape = b.node("Concat", dim(b, first, 0), b.const([3, 8], np.int64), axis=0)
    model = b.finish(b.linear(b.node("Expand", first, shape), 8, 4))
    after = normalize(model)
    assert "Shape" not in {node.op_type for node in after.graph.node}
    assert all(equal(model, after, batch) for batch in (1, 2, 5))


@pytest.mark.parametrize(
    ("targets", "operands", "expected"),
    [
        ([[2, 1, 9], [3, 1, 9]], [[2, 4, 1], [3, 4, 1]], [1, 1, 9]),
        ([[4, 8], [4, 8]], [[2, 4, 8], [3, 4, 8]], [1, 1, 1]),
        ([[2, 4, 8], [3, 4, 8]], [[4, 8], [4, 8]], None),
        ([[5, 2, 4], [5, 3, 4]], [[2, 4], [3, 4]], [5, 1, 1]),
        ([[2, 2], [3, 3]], [[2, 1], [3, 1]], None),
    ],
)
def test_expand_target(targets: list[list[int]], operands: list[list[int]], expected: list[int] | None) -> None:
    assert expand_target(targets, operands) == expected


def test_fold_arithmetic_on_weights_is_done_once() -> None:
    b = Builder(["batch", 6])
    weight = b.node("Transpose", b.node("Mul", b.weight(4, 6), b.const(0.5)), perm=[1, 0])
    model = b.finish(b.node("MatMul", "x", weight))
    after = normalize(model)
    assert [node.op_type for node in after.graph.node] == ["MatMul"]
    assert equal(model, after, 3)


def test_fold_fixed_batch_takes_everything() -> None:
    b = Builder([1, 3, 4, 4])
    first = b.conv("x", 3, 6)
    target = b.node("Concat", dim(b, first, 0), b.const([96], np.int64), axis=0)
    model = b.finish(b.gemm(b.node("Reshape", first, target), 96, 5))
    assert [node.op_type for node in normalize(model).graph.node] == ["Conv", "Reshape", "Gemm"]


def test_fold_batch_fixed_by_the_exporter_runs_for_that_batch() -> None:
    b = Builder(["batch", 3, 4, 4])
    first = b.node("Reshape", b.conv("x", 3, 6), b.const([1, 96], np.int64))
    target = b.node("Concat", dim(b, first, 0), b.const([2, 48], np.int64), axis=0)
    model = b.finish(b.linear(b.node("Reshape", first, target), 48, 5))
    after = normalize(model)
    assert [node.op_type for node in after.graph.node][:3] == ["Conv", "Reshape", "Reshape"]
    assert equal(model, after, 1)


def test_fold_large_result_of_small_operands_stays() -> None:
    b = Builder(["batch", 8])
    huge = b.node("Expand", b.const([[1.0]]), b.const([1024, 1024], np.int64))
    model = b.finish(b.node("ReduceMax", b.node("Add", b.gemm("x", 8, 1), huge), keepdims=0))
    assert "Expand" in {node.op_type for node in normalize(model).graph.node}


def test_fold_random_nodes_are_left_alone() -> None:
    b = Builder(["batch", 8])
    noise = b.node("RandomNormalLike", b.vector(4), scale=1.0)
    model = b.finish(b.node("Add", b.gemm("x", 8, 4), noise))
    assert "RandomNormalLike" in {node.op_type for node in normalize(model).graph.node}


def squeeze_if(condition: bool) -> onnx.ModelProto:
    """An If on a size, as exporters write squeeze: both branches read a tensor of the graph around them."""
    b = Builder(["batch", 3, 4, 4])
    first = b.conv("x", 3, 6)
    is_six = b.node("Equal", dim(b, first, 1), b.const([6 if condition else 5], np.int64))
    branches = {}
    for name, scale in (("then_branch", 2.0), ("else_branch", 3.0)):
        factor = numpy_helper.from_array(np.float32(scale), "factor")
        result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        nodes = [
            helper.make_node("Tanh", [first], ["inner"]),
            helper.make_node("Mul", ["inner", "factor"], [result.name]),
        ]
        branches[name] = helper.make_graph(nodes, name, [], [result], [factor])
    chosen = b.node("If", is_six, **branches)
    return tiny_models.head(b, chosen, 6)


@pytest.mark.parametrize("condition", [True, False])
def test_fold_constant_if_becomes_its_branch(condition: bool) -> None:
    model = squeeze_if(condition)
    after = normalize(model)
    assert [node.op_type for node in after.graph.node] == [
        "Conv",
        "Tanh",
        "Mul",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    assert equal(model, after, 3)
    assert parse(after).channel_groups[0].locked_because is None


def test_placeholder_target_without_a_solution_is_none() -> None:
    assert placeholder_target([[2, 96, -1], [3, 96, -1]], [[2, 96, 7, 7], [3, 96, 7, 7]]) == [0, 96, -1]
    assert placeholder_target([[8, 12], [12, 12]], [[2, 4, 12], [3, 4, 12]]) == [-1, 12]
    assert placeholder_target([[8, -1], [12, -1]], [[2, 4, 12], [3, 4, 12]]) is None
