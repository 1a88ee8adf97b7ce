from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.parse import DENSITY_KEY, PATTERN_KEY, parse
from hwc_onnx.graph.zero_pattern import Blocks
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder


def test_models_without_weighted_layers_are_parsed() -> None:
    b = Builder(["batch", 4])
    assert parse(b.finish(b.node("Relu", "x"))).layers == ()
    b = Builder(["batch", 4, 4])
    (layer,) = parse(b.finish(b.node("MatMul", "x", "x"))).layers
    assert layer.weight is None and layer.macs == 4 * 4 * 4


def test_parse_open_axis_is_refused_and_settled_by_input_shape() -> None:
    b = Builder(["batch", 3, "height", 8])
    model = tiny_models.head(b, b.conv("x", 3, 4), 4)
    with pytest.raises(ModelError, match=r"input 'x'.*axis 2 \(height\) open.*--input-shape x:1x3x224x8"):
        parse(model)
    assert parse(model, {"x": (1, 3, 6, 8)}).tensors["x"].shape == (1, 3, 6, 8)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"x": (1, 3, 8)}, "has 4 axes"),
        ({"x": (1, 4, 8, 8)}, "axis 1 is 3 in the model"),
        ({"x": (0, 3, 8, 8)}, "must be positive"),
        ({"image": (1, 3, 8, 8)}, "names 'image'"),
    ],
)
def test_parse_contradicting_input_shape_is_refused(shape: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        parse(tiny_models.chain(), shape)


def test_parse_float_model_counts_zeros_of_weights() -> None:
    model = tiny_models.chain()
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values.ravel()[:54] = 0.0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "c0"))
    graph = parse(model)
    assert graph.layers[0].weight_density == 0.75
    assert graph.tensors["c0"].density == 0.75
    assert graph.layers[1].weight_density == 1.0
    assert {layer.weight_bits for layer in graph.layers} == {16}


def test_parse_densities_come_from_caller_else_from_file() -> None:
    model = tiny_models.chain()
    model.metadata_props.add(key=DENSITY_KEY, value=json.dumps({"t1": 0.25, "t4": 0.5}))
    graph = parse(model)
    assert graph.layer("t2").activation_density == 0.25
    assert graph.tensors["t5"].density == 0.5  # its group's first tensor is recorded
    assert parse(model, densities={"t1": 0.75}).layer("t2").activation_density == 0.75


@pytest.mark.parametrize("text", ["not json", "[1, 2]", '"x"'])
def test_parse_damaged_metadata_counts_as_absent(text: str) -> None:
    model = tiny_models.chain()
    model.metadata_props.add(key=DENSITY_KEY, value=text)
    model.metadata_props.add(key=PATTERN_KEY, value=text)
    assert parse(model).layer("t2").activation_density == 1.0


@pytest.mark.parametrize(("spoilt", "expected"), [(False, (2, 4)), (True, None)])
def test_parse_declared_pattern_is_believed_only_if_weights_follow(
    spoilt: bool, expected: tuple[int, int] | None
) -> None:
    model = tiny_models.chain()
    stored = {tensor.name: tensor for tensor in model.graph.initializer}["c2"]
    values = numpy_helper.to_array(stored).copy()
    values[:, [0, 1, 4, 5]] = 0.0
    if spoilt:
        values[0, 0, 0, 0] = 1.0
    stored.CopyFrom(numpy_helper.from_array(values, "c2"))
    model.metadata_props.add(key=PATTERN_KEY, value='{"t2": [2, 4]}')
    assert parse(model).layer("t2").nm_pattern == expected


@pytest.mark.parametrize("claimed", ['["a", 2]', '[2.0, 4]', '[true, 4]', '[0, 4]', '[4, 2]', '[1, 1000000000000000]', '"1x"', '"1x0"', '"1x99999"', '4'])
def test_parse_pattern_that_is_none_counts_as_absent(claimed: str) -> None:
    model = tiny_models.chain()
    model.metadata_props.add(key=PATTERN_KEY, value=f'{{"t2": {claimed}}}')
    assert parse(model).layer("t2").nm_pattern is None


def test_parse_blocks_are_counted_whatever_is_declared() -> None:
    model = tiny_models.chain()
    stored = {tensor.name: tensor for tensor in model.graph.initializer}["c2"]
    values = numpy_helper.to_array(stored).copy()
    values[:] = 1.0
    values[:2, :4] = 0.0
    stored.CopyFrom(numpy_helper.from_array(values, "c2"))
    model.metadata_props.add(key=PATTERN_KEY, value='{"t2": "1x4"}')
    outputs, channels = values.shape[:2]
    blocks = -(-channels // 4)
    assert parse(model).layer("t2").nm_pattern == Blocks(pytest.approx(1 - 2 / (outputs * blocks)), 4)
    values[0, 0, 0, 0] = 1.0
    stored.CopyFrom(numpy_helper.from_array(values, "c2"))
    taps = values[0, 0].size
    assert parse(model).layer("t2").nm_pattern == Blocks(pytest.approx(1 - (2 * taps - 1) / (outputs * blocks * taps)), 4)


def test_parse_bias_of_conv_gemm_and_matmul_add_is_named() -> None:
    graph = parse(tiny_models.chain())
    assert [layer.bias for layer in graph.layers] == ["c1", "c3", "c7"]
    graph = parse(normalize(tiny_models.mlp_block()))
    assert [graph.tensors[layer.bias].shape for layer in graph.layers if layer.bias] == [(16,), (8,)]


def test_parse_add_of_positions_is_no_bias() -> None:
    b = Builder(["batch", 5, 8])
    product = b.node("MatMul", "x", b.weight(8, 4))
    model = b.finish(b.node("Add", product, b.weight(5, 4)))
    assert parse(model).layers[0].bias is None


def test_parse_unknown_work_is_listed() -> None:
    b = Builder(["batch", 5, 8])
    total = b.node("Einsum", b.linear("x", 8, 8), b.weight(8, 8), equation="bij,jk->bik")
    graph = parse(b.finish(b.linear(total, 8, 4)))
    assert graph.unmodelled == (("t2", "Einsum: its work is not modelled"),)
    assert graph.group_of("t0").locked_because is None  # type: ignore[union-attr]


def test_parse_computed_weight_is_listed() -> None:
    b = Builder(["batch", 3, 4, 4])
    first = b.conv("x", 3, 4)
    kernel = b.node(
        "Reshape",
        b.node("Slice", first, *(b.const([v], np.int64) for v in (0, 1, 2))),
        b.const([1, 1, 1, -1], np.int64),
    )
    graph = parse(
        b.finish(b.node("Conv", b.node("ReduceMean", first, axes=[1]), b.node("ReduceMean", kernel, axes=[3])))
    )
    assert [reason for _, reason in graph.unmodelled] == ["Conv: its weights are computed, not constant"]
    assert len(graph.layers) == 1


def test_parse_shapes_left_open_by_inference_are_measured() -> None:
    b = Builder(["batch", 4])
    model = b.finish(b.node("FusedMatMul", b.gemm("x", 4, 6), b.weight(6, 5), domain="com.microsoft"))
    assert parse(model).tensors["y"].shape == (1, 5)


def test_parse_contradicting_shapes_are_refused() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.zeros((5, 3), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    with pytest.raises(ModelError, match="sums over 4 of its input and 5 of its weights"):
        parse(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_parse_is_deterministic_and_leaves_the_model_alone() -> None:
    model = normalize(tiny_models.residual())
    before = model.SerializeToString(deterministic=True)
    assert parse(model) == parse(onnx.ModelProto.FromString(before))
    assert model.SerializeToString(deterministic=True) == before
