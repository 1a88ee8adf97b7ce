from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.graph.model_view import opset_of
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize import pipeline
from hwc_onnx.normalize.compare import same_values
from hwc_onnx.normalize.editing import sort_nodes
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.graph.written import random_plan, write
from tests.tiny_models import Builder


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def equal(before: onnx.ModelProto, after: onnx.ModelProto, batch: int = 4) -> bool:
    values = tiny_models.feeds(before, batch, seed=9)
    return same_values(tiny_models.run(before, values)[0], tiny_models.run(after, values)[0])


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_normalize_keeps_outputs_interface_metadata_and_is_idempotent(name: str) -> None:
    model = tiny_models.ALL[name]()
    original = model.SerializeToString(deterministic=True)
    once = normalize(model)
    assert model.SerializeToString(deterministic=True) == original
    assert equal(model, once)
    assert list(once.graph.input) == list(model.graph.input)
    assert list(once.graph.output) == list(model.graph.output)
    assert list(once.metadata_props) == list(model.metadata_props)
    assert normalize(once).SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
    onnx.checker.check_model(once)


def test_normalize_wrong_rewrite_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(proto: onnx.ModelProto, shapes: object) -> None:
        tensor = proto.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name))

    monkeypatch.setattr(pipeline, "merge_affine", wrong)
    normalize(tiny_models.chain())
    assert "left out" in caplog.text and "changed output 'y'" in caplog.text


def test_normalize_folds_batch_norm_into_the_layer_before() -> None:
    model = tiny_models.batch_norm()
    after = normalize(model)
    assert ops(model)["BatchNormalization"] == 2
    assert ops(after)["BatchNormalization"] == 1  # the one behind the Concat has no layer to go into
    assert len(after.graph.node[0].input) == 3


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_normalize_folds_batch_norm_grouped_both_convolutions(op: str, group: int) -> None:
    b = Builder(["batch", 4, 6, 6])
    shape = (8, 4 // group, 3, 3) if op == "Conv" else (4, 8 // group, 3, 3)
    y = b.node(op, "x", b.weight(*shape), b.vector(8), group=group)
    scale, var = (b.const(b.rng.uniform(0.5, 2.0, 8)) for _ in range(2))
    model = tiny_models.head(b, b.node("BatchNormalization", y, scale, b.vector(8), b.vector(8), var), 8)
    after = normalize(model)
    assert ops(after) == Counter({op: 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1})
    assert equal(model, after)


def test_normalize_folds_batch_norm_behind_gemm_and_matmul() -> None:
    for transposed in (True, False):
        b = Builder(["batch", 6])
        y = b.gemm("x", 6, 4) if transposed else b.node("MatMul", "x", b.weight(6, 4))
        scale, var = (b.const(b.rng.uniform(0.5, 2.0, 4)) for _ in range(2))
        model = b.finish(b.node("Relu", b.node("BatchNormalization", y, scale, b.vector(4), b.vector(4), var)))
        after = normalize(model)
        assert ops(after)["BatchNormalization"] == 0
        assert equal(model, after)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (), (1,)])
def test_normalize_merges_constants_per_channel(op: str, shape: tuple[int, ...]) -> None:
    b = Builder(["batch", 3, 6, 6])
    constant = b.const(b.rng.uniform(0.5, 2.0, shape))
    model = tiny_models.head(b, b.node(op, b.conv("x", 3, 4), constant), 4)
    after = normalize(model)
    assert ops(after)[op] == 0
    assert equal(model, after)


def test_normalize_leaves_constants_that_are_not_per_channel() -> None:
    b = Builder(["batch", 3, 6, 6])
    model = tiny_models.head(b, b.node("Add", b.conv("x", 3, 6), b.weight(6, 1)), 6)
    assert ops(normalize(model))["Add"] == 1
    b = Builder(["batch", 3, 6, 6])
    model = tiny_models.head(b, b.node("Sub", b.weight(4, 1, 1), b.conv("x", 3, 4)), 4)
    assert ops(normalize(model))["Sub"] == 1


def test_normalize_keeps_matmul_and_its_bias_apart() -> None:
    b = Builder(["batch", 5, 6])
    model = b.finish(b.linear("x", 6, 4))
    assert [node.op_type for node in normalize(model).graph.node] == ["MatMul", "Add"]


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 1.0), (1.0, 2.0), (0.25, -1.5)])
def test_normalize_gemm_scales_go_into_constants(alpha: float, beta: float) -> None:
    b = Builder(["batch", 6])
    model = b.finish(b.node("Gemm", "x", b.weight(6, 4), b.weight(1, 4), alpha=alpha, beta=beta))
    after = normalize(model)
    assert {attribute.name for attribute in after.graph.node[0].attribute} <= {"transB"}
    assert {tuple(tensor.dims) for tensor in after.graph.initializer} == {(6, 4), (4,)}
    assert equal(model, after)


def test_normalize_zero_pad_goes_into_convolutions() -> None:
    b = Builder(["batch", 3, 6, 6])
    padded = b.node("Pad", "x", b.const([0, 0, 1, 0, 0, 0, 2, 1], np.int64), b.const(0.0))
    model = tiny_models.head(b, b.node("Add", b.conv(padded, 3, 4, pads=[1, 1, 1, 1]), b.conv(padded, 3, 4)), 4)
    after = normalize(model)
    assert ops(after)["Pad"] == 0
    assert equal(model, after)


@pytest.mark.parametrize(("fill", "mode"), [(1.0, "constant"), (0.0, "reflect")])
def test_normalize_other_pads_stay(fill: float, mode: str) -> None:
    b = Builder(["batch", 3, 6, 6])
    padded = b.node("Pad", "x", b.const([0, 0, 1, 0, 0, 0, 2, 1], np.int64), b.const(fill), mode=mode)
    model = tiny_models.head(b, b.conv(padded, 3, 4), 4)
    assert ops(normalize(model))["Pad"] == 1
    assert equal(model, normalize(model))


def test_normalize_shared_constants_are_told_apart() -> None:
    b = Builder(["batch", 3, 6, 6])
    weight, bias = b.weight(3, 3, 3, 3), b.vector(3)
    first = b.node("Relu", b.node("Conv", "x", weight, bias, pads=[1, 1, 1, 1]))
    second = b.node("Mul", b.node("Conv", first, weight, bias, pads=[1, 1, 1, 1]), b.const(2.0))
    model = tiny_models.head(b, second, 3)
    after = normalize(model)
    convs = [node for node in after.graph.node if node.op_type == "Conv"]
    assert not set(convs[0].input[1:]) & set(convs[1].input[1:])
    assert equal(model, after)


def test_normalize_drops_identity_dropout_and_constants_keeping_the_output_name() -> None:
    b = Builder(["batch", 3, 6, 6])
    alias = b.node("Identity", b.node("Dropout", b.conv("x", 3, 4)))
    b.nodes.append(helper.make_node("Constant", [], ["six"], value_float=6.0))
    b.nodes.append(helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.float32(0))))
    model = b.finish(b.node("Identity", b.node("Clip", b.node("Identity", alias), "zero", "six")), ["batch", 4, 6, 6])
    after = normalize(model)
    assert [node.op_type for node in after.graph.node] == ["Conv", "Clip"]
    assert after.graph.node[-1].output[0] == "y"


def test_normalize_input_handed_to_an_output_keeps_its_identity() -> None:
    b = Builder(["batch", 4])
    model = b.finish(b.gemm("x", 4, 3))
    model.graph.node.append(helper.make_node("Identity", ["x"], ["same"]))
    model.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", 4]))
    after = normalize(model)
    assert ops(after) == Counter({"Gemm": 1, "Identity": 1})


def test_normalize_default_of_an_input_becomes_a_constant() -> None:
    model = tiny_models.chain()
    model.graph.input.append(helper.make_tensor_value_info("c0", TensorProto.FLOAT, [8, 3, 3, 3]))
    assert [value.name for value in normalize(model).graph.input] == ["x"]


def test_normalize_opset_9_is_raised() -> None:
    b = Builder(["batch", 3, 6, 6], opset=9)
    y = b.node("Clip", b.conv("x", 3, 4), min=0.0, max=6.0)
    model = tiny_models.head(b, y, 4)
    after = normalize(model)
    assert opset_of(after) == 13
    assert equal(model, after)
    assert list(after.metadata_props) == list(model.metadata_props)


def test_normalize_half_precision_becomes_float_inside() -> None:
    b = Builder(["batch", 3, 6, 6])
    model = tiny_models.head(b, b.node("Relu", b.conv("x", 3, 4)), 4)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del model.graph.value_info[:]
    after = normalize(model)
    assert list(after.graph.input) == list(model.graph.input) and list(after.graph.output) == list(model.graph.output)
    assert {tensor.data_type for tensor in after.graph.initializer} == {TensorProto.FLOAT}
    assert ops(after)["Cast"] == 2
    values = {"x": tiny_models.feeds(model)["x"].astype(np.float16)}
    np.testing.assert_allclose(
        tiny_models.run(after, values)[0], tiny_models.run(model, values)[0], rtol=2e-2, atol=2e-2
    )


def test_normalize_quantized_file_keeps_its_meaning() -> None:
    proto = normalize(tiny_models.residual())
    graph = parse(proto)
    rng = np.random.default_rng(3)
    written, _ = write(proto, graph, random_plan(graph, rng), rng)
    after = normalize(written)
    values = tiny_models.feeds(written)
    np.testing.assert_array_equal(tiny_models.run(written, values)[0], tiny_models.run(after, values)[0])
    assert ops(after)["QuantizeLinear"] == ops(written)["QuantizeLinear"]
    assert ops(after)["DequantizeLinear"] == ops(written)["DequantizeLinear"]


def test_normalize_model_that_does_not_run_is_refused() -> None:
    b = Builder(["batch", 3, 6, 6])
    model = b.finish(b.node("Gemm", b.conv("x", 3, 4), b.weight(4, 4)))
    with pytest.raises(ModelError):
        normalize(model)


@pytest.mark.parametrize(
    ("factor", "same"), [(1.0, True), (1.00005, True), (1.001, False), (-1.0, False), (float("nan"), False)]
)
def test_same_values_tolerance_bites(factor: float, same: bool) -> None:
    values = np.linspace(0.5, 2.0, 7, dtype=np.float32)
    assert same_values(values, values * np.float32(factor)) is same
    assert same_values(values, values[:-1]) is False


@pytest.mark.parametrize("name", sorted(tiny_models.ALL))
def test_normalize_sorts_nodes_listed_out_of_order(name: str) -> None:
    model = tiny_models.ALL[name]()
    shuffled = onnx.ModelProto.FromString(model.SerializeToString())
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(copies)
    sort_nodes(shuffled)
    onnx.checker.check_model(shuffled)
    assert equal(model, shuffled)


def test_normalize_cycle_is_refused_not_looped_over() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "b")]
    with pytest.raises(ModelError):
        normalize(helper.make_model(helper.make_graph(nodes, "cycle", shape[:1], shape[1:])))


def test_a_rewrite_that_changes_the_model_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(model: onnx.ModelProto, _: object) -> None:
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), weight.name))

    monkeypatch.setattr(pipeline, "REWRITES", (*pipeline.REWRITES, ("doubled weights", wrong)))
    model = tiny_models.chain()
    found = normalize(model)
    assert "doubled weights" in caplog.text and "normalization changed output" in caplog.text
    feeds = tiny_models.feeds(model)
    np.testing.assert_allclose(tiny_models.run(found, feeds)[0], tiny_models.run(model, feeds)[0], rtol=1e-5, atol=1e-6)


def test_a_fault_that_no_rewrite_can_be_blamed_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: onnx.GraphProto) -> None:
        graph.initializer[0].CopyFrom(
            numpy_helper.from_array(2 * numpy_helper.to_array(graph.initializer[0]), graph.initializer[0].name)
        )

    monkeypatch.setattr(pipeline, "constants_per_node", lambda model: wrong(model.graph))
    with pytest.raises(RuntimeFailure, match="normalization changed output"):
        normalize(tiny_models.chain())
