"""Quantizers read back give the model and the widths that went in, and nothing is believed unseen."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwc_onnx.graph.read_qdq import BITS_KEY, read_qdq
from hwc_onnx.quantization.quantizer import dequantize
from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.plain_weights import quantize_weight
from tests.rewrite.hand_graph import hand_graph
from tests.rewrite.quantized_case import QuantizedCase, run_at
from tests.rewrite.small_models import NAMES


def structure(model: onnx.ModelProto) -> list[tuple[str, list[str], list[str]]]:
    return [(node.op_type, list(node.input), list(node.output)) for node in model.graph.node]


def declare(model: onnx.ModelProto, bits: object) -> None:
    kept = [entry for entry in model.metadata_props if entry.key != BITS_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=BITS_KEY, value=bits if isinstance(bits, str) else json.dumps(bits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 7), (3, 4), (2, 2), (6, 5)])
def test_read_qdq_gives_back_structure_names_widths_and_zeros(
    name: str, weight_bits: int, activation_bits: int
) -> None:
    quantized = QuantizedCase.of(name)
    weights, activations = quantized.weights(weight_bits), quantized.activations(activation_bits)
    logical = read_qdq(quantized.written(weight_bits, activation_bits))
    assert structure(logical.proto) == structure(quantized.case.model)
    assert dict(logical.activation_bits) == dict.fromkeys(activations, activation_bits)
    names = {layer.weight: weights[layer.key] for layer in quantized.graph.layers if layer.weight}
    assert dict(logical.weight_bits) == dict.fromkeys(names, weight_bits)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in logical.proto.graph.initializer}
    assert set(values) == {tensor.name for tensor in quantized.case.model.graph.initializer}
    for tensor, weight in names.items():
        assert logical.weight_density[tensor] == weight.weight_density
        np.testing.assert_array_equal(values[tensor], dequantize(weight.codes, weight.params))


def test_read_qdq_plain_float_model_is_the_same_object() -> None:
    model = QuantizedCase.of("residual").case.model
    logical = read_qdq(model)
    assert logical.proto is model and not logical.weight_bits and not logical.activation_bits


def test_read_qdq_zeroing_one_integer_changes_the_density() -> None:
    written = QuantizedCase.of("chain").written(8, 8)
    before = read_qdq(written).weight_density["w1"]
    stored = next(tensor for tensor in written.graph.initializer if tensor.name == "w1_quantized")
    codes = bytearray(stored.raw_data)
    place = next(i for i, code in enumerate(codes) if code)
    codes[place] = 0
    stored.raw_data = bytes(codes)
    assert read_qdq(written).weight_density["w1"] == pytest.approx(before - 1 / len(codes), abs=1e-12)


def test_read_qdq_declared_width_that_does_not_fit_is_ignored() -> None:
    written = QuantizedCase.of("chain").written(6, 8)
    assert read_qdq(written).weight_bits["w1"] == 6
    declare(written, {"w1": 5, "w2": 6})
    assert dict(read_qdq(written).weight_bits) == {"w1": 8, "w2": 6}


@pytest.mark.parametrize("text", ["not json", "[1, 2]", '{"w1": "6"}', '{"w1": true}', '{"w1": 1}', '{"w1": 99}'])
def test_read_qdq_damaged_declaration_falls_back_to_the_container(text: str) -> None:
    written = QuantizedCase.of("chain").written(6, 8)
    declare(written, text)
    assert read_qdq(written).weight_bits["w1"] == 8


def test_read_qdq_two_bit_codes_with_one_sign_per_channel_fit_two_bits() -> None:
    model = QuantizedCase.of("chain").case.model
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    full = quantize_weight(weight, 0, 2, two_bits="full")
    assert full.codes.min() == -2 and full.codes.max() == 2
    logical = read_qdq(insert_qdq(model, hand_graph(model), {"c1": full}, {}))
    assert logical.weight_bits["w1"] == 2
    spoiled = insert_qdq(model, hand_graph(model), {"c1": full}, {})
    stored = next(tensor for tensor in spoiled.graph.initializer if tensor.name == "w1_quantized")
    stored.raw_data = b"\x2e" + stored.raw_data[1:]  # -2 and 2 in one channel
    assert read_qdq(spoiled).weight_bits["w1"] == 4


def test_read_qdq_separate_bias_goes_back_into_the_layer() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> one (float[n,3,4,4] x) => (float[n,2,4,4] y)'
        "{ c = Conv (x, w, b) y = Relu (c) }"
    )
    weight = np.array([[1e-7, 2e-7, 0], [1, 2, 3]], np.float32).reshape(2, 3, 1, 1)
    bias = np.array([1.0, -1.0], np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
    weights = {"c": quantize_weight(weight, 0, 8, bias=bias)}
    written = insert_qdq(model, hand_graph(model), weights, {"x": range_params(0, 1, 8)})
    assert "Add" in [node.op_type for node in written.graph.node]
    logical = read_qdq(written)
    assert structure(logical.proto) == structure(model)
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in logical.proto.graph.initializer}
    np.testing.assert_array_equal(kept["b"], bias)


def foreign(nodes: list[onnx.NodeProto], extra: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model as other tools write it: float weight, quantizers everywhere."""
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [numpy_helper.from_array(values, name) for name, values in extra.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def constants(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "sx": np.float32(0.02),
        "zx": np.uint8(3),
        "sw": np.array([0.01, 0.02], np.float32),
        "zw": np.zeros(2, np.int8),
        "w_float": rng.standard_normal((2, 3, 1, 1)).astype(np.float32),
        "b_int": np.array([700, -300], np.int32),
        "sb": np.array([0.0002, 0.0004], np.float32),
    }


def test_read_qdq_weight_quantized_in_the_graph_and_int32_bias_become_constants() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("QuantizeLinear", ["w_float", "sw", "zw"], ["wq"], axis=0),
        helper.make_node("DequantizeLinear", ["wq", "sw", "zw"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["b_int", "sb"], ["b"], axis=0),
        helper.make_node("Conv", ["xd", "w", "b"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    model = foreign(nodes, constants(rng))
    logical = read_qdq(model)
    assert structure(logical.proto) == [("Conv", ["x", "w", "b"], ["y"])]
    assert dict(logical.weight_bits) == {"w": 8} and dict(logical.activation_bits) == {"x": 8}
    grid = np.clip(rng.integers(0, 250, (2, 3, 4, 4)), 3, 250).astype(np.float32)
    feeds = {"x": ((grid - 3) * np.float32(0.02)).astype(np.float32)}
    np.testing.assert_allclose(
        run_at(logical.proto, feeds, "disable"), run_at(model, feeds, "disable"), rtol=1e-5, atol=1e-5
    )


def test_read_qdq_several_dequantizers_of_one_tensor_are_one_tensor() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd1"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd2"]),
        helper.make_node("Conv", ["xd1", "w_float"], ["c1"]),
        helper.make_node("Conv", ["xd2", "w_float"], ["c2"]),
        helper.make_node("Add", ["c1", "c2"], ["y"]),
    ]
    logical = read_qdq(foreign(nodes, constants(np.random.default_rng(0))))
    assert structure(logical.proto)[0] == ("Conv", ["x", "w_float"], ["c1"])
    assert structure(logical.proto)[1] == ("Conv", ["x", "w_float"], ["c2"])


def test_read_qdq_other_scale_behind_than_before_is_left_in_the_graph() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s2", "zx"], ["xd"]),
        helper.make_node("Conv", ["xd", "w_float"], ["y"]),
    ]
    extra = constants(np.random.default_rng(0)) | {"s2": np.float32(0.04)}
    logical = read_qdq(foreign(nodes, extra))
    assert [node.op_type for node in logical.proto.graph.node] == ["QuantizeLinear", "DequantizeLinear", "Conv"]


def test_read_qdq_float_clip_before_a_quantizer_is_the_models_own() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "lo", "hi"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("Conv", ["xd", "w_float"], ["y"]),
    ]
    extra = constants(np.random.default_rng(0)) | {"lo": np.float32(0), "hi": np.float32(0.3)}
    logical = read_qdq(foreign(nodes, extra))
    assert structure(logical.proto)[0] == ("Clip", ["x", "lo", "hi"], ["c"])
    assert dict(logical.activation_bits) == {"c": 8}


def test_read_qdq_quantizer_at_the_output_stays() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w_float"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "sx", "zx"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "sx", "zx"], ["y"]),
    ]
    logical = read_qdq(foreign(nodes, constants(np.random.default_rng(0))))
    assert structure(logical.proto)[-1][2] == ["y"]
    onnx.checker.check_model(logical.proto)


def test_read_qdq_blocked_weight_has_its_real_values() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (8, 6)).astype(np.int8)
    scale = rng.uniform(0.1, 1.0, (2, 6)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["wq", "s"], ["w"], axis=0, block_size=4),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "blocked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
        [numpy_helper.from_array(codes, "wq"), numpy_helper.from_array(scale, "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    feeds = {"x": rng.standard_normal((3, 8)).astype(np.float32)}
    logical = read_qdq(model)
    np.testing.assert_allclose(
        run_at(logical.proto, feeds, "disable"), run_at(model, feeds, "disable"), rtol=1e-5, atol=1e-5
    )


def test_read_qdq_tensor_read_by_a_subgraph_keeps_its_quantizer() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]> branch (float[n,4] x, bool flag) => (float[n,4] y)
        <float s = {0.1}, uint8 z = {0}>
        { q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
          y = If (flag) <
            then_branch = yes () => (float[n,4] a) { a = Relu (d) },
            else_branch = no () => (float[n,4] b) { b = Neg (d) }> }"""
    )
    logical = read_qdq(model)
    assert [node.op_type for node in logical.proto.graph.node] == ["QuantizeLinear", "DequantizeLinear", "If"]
