"""The rules that bite when forgotten, one by one; each test has a twin that breaks the rule and must be noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from hwc_onnx.errors import PlanError, UsageError
from hwc_onnx.graph.read_qdq import read_qdq
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams
from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.plain_weights import quantize_weight
from tests.rewrite.hand_graph import hand_graph
from tests.rewrite.integer_reference import run_reference
from tests.rewrite.quantized_case import LEVELS, QuantizedCase, relative, run_at
from tests.rewrite.small_models import NAMES

# one layer each: declaration of x, the layer, weight shape, axis of its output channels
SINGLE = {
    "Conv": ("float[n,4,5,5] x", "c = Conv (x, w, b)", (6, 4, 3, 3), 0),
    "depthwise Conv": ("float[n,6,5,5] x", "c = Conv <group=6> (x, w, b)", (6, 1, 3, 3), 0),
    "ConvTranspose": ("float[n,4,5,5] x", "c = ConvTranspose (x, w, b)", (4, 6, 3, 3), 1),
    "Gemm transB=1": ("float[n,8] x", "c = Gemm <transB=1> (x, w, b)", (6, 8), 0),
    "Gemm transB=0": ("float[n,8] x", "c = Gemm (x, w, b)", (8, 6), 1),
    "MatMul": ("float[n,3,8] x", "m = MatMul (x, w) c = Add (m, b)", (8, 6), 1),
    "MatMul of rank 2": ("float[n,8] x", "m = MatMul (x, w) c = Add (m, b)", (8, 6), 1),
}


def single(
    kind: str, weight: NDArray[np.float32], bias: NDArray[np.float32], tail: str = "r = Relu (c)"
) -> onnx.ModelProto:
    header, body, _, _ = SINGLE[kind]
    text = f'<ir_version: 10, opset_import: ["": 21]> one ({header}) => (float y) {{ {body} {tail} y = Flatten (r) }}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"]))
    for name, values in (("w", weight), ("b", bias)):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def feed(kind: str, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    header = SINGLE[kind][0]
    shape = [3, *(int(size) for size in header[header.index("[") + 1 : header.index("]")].split(",")[1:])]
    return {"x": rng.uniform(0.0, 4.0, shape).astype(np.float32)}


def channel(kind: str, index: int) -> tuple[object, ...]:
    """Where output channel `index` lies in the weight."""
    return (slice(None),) * SINGLE[kind][3] + (index,)


def spread(values: dict[str, NDArray]) -> float:
    """Largest difference between levels."""
    return max(float(np.abs(found - values["disable"]).max()) for found in values.values())


@pytest.mark.parametrize("kind", SINGLE)
def test_insert_qdq_dead_and_tiny_channels_keep_their_bias_at_all_levels(kind: str) -> None:
    rng = np.random.default_rng(4)  # of seed 1 one sum lies on a tie, which double precision rounds the other way
    weight = rng.standard_normal(SINGLE[kind][2]).astype(np.float32)
    weight[channel(kind, 0)] = 0.0
    weight[channel(kind, 1)] *= 1e-7
    weight[channel(kind, 2)] *= 1e-12
    bias = np.array([1.0, 1.0, 0.9, -0.2, 0.3, 0.0], np.float32)
    model, feeds = single(kind, weight, bias), feed(kind, rng)
    graph, key = hand_graph(model), hand_graph(model).layers[0].key
    weights = {key: quantize_weight(weight, SINGLE[kind][3], 8, bias=bias)}
    activations = {"x": range_params(0.0, 4.0, 8), "r": range_params(0.0, 40.0, 8)}
    written = insert_qdq(model, graph, weights, activations)
    expected = run_reference(model, graph, weights, activations, feeds)["y"]
    found = {level: run_at(written, feeds, level) for level in LEVELS}
    assert all(relative(values, expected) <= 1e-5 for values in found.values())
    assert np.abs(found["all"] - run_at(model, feeds, "disable")).max() < 0.3


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_epsilon_scale_of_a_dead_channel_loses_its_bias(kind: str) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(SINGLE[kind][2]).astype(np.float32)
    weight[channel(kind, 0)] = 0.0
    bias = np.full(6, 0.9, np.float32)
    model, feeds = single(kind, weight, bias), feed(kind, rng)
    graph = hand_graph(model)
    good = quantize_weight(weight, SINGLE[kind][3], 8, bias=bias)
    written = insert_qdq(model, graph, {"c": good}, {name: range_params(0.0, 4.0, 8) for name in ("x", "r")})
    broken = onnx.ModelProto()
    broken.CopyFrom(written)
    (scale,) = (tensor for tensor in broken.graph.initializer if tensor.name == "w_scale")
    values = numpy_helper.to_array(scale).copy()
    values[0] = 1e-12
    scale.raw_data = values.tobytes()
    assert spread({level: run_at(written, feeds, level) for level in LEVELS}) < 1e-5
    assert spread({level: run_at(broken, feeds, level) for level in LEVELS}) > 0.5


@pytest.mark.parametrize("kind", SINGLE)
def test_insert_qdq_coarse_bias_grid_gives_the_same_at_all_levels(kind: str) -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal(SINGLE[kind][2]).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    model, feeds = single(kind, weight, bias), feed(kind, rng)
    key = hand_graph(model).layers[0].key
    activations = {"x": range_params(0.0, 4.0, 2), "r": range_params(0.0, 9.0, 8)}
    weights = {key: quantize_weight(weight, SINGLE[kind][3], 2, bias=bias)}
    written = insert_qdq(model, hand_graph(model), weights, activations)
    assert spread({level: run_at(written, feeds, level) for level in LEVELS}) < 1e-5


@pytest.mark.parametrize("kind", ["Conv", "Gemm transB=1"])
def test_bias_off_the_integer_grid_differs_between_levels(kind: str) -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal(SINGLE[kind][2]).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    model, feeds = single(kind, weight, bias), feed(kind, rng)
    activations = {"x": range_params(0.0, 4.0, 2), "r": range_params(0.0, 9.0, 8)}
    weights = {"c": quantize_weight(weight, SINGLE[kind][3], 2, bias=bias)}
    broken = insert_qdq(model, hand_graph(model), weights, activations)
    (stored,) = (tensor for tensor in broken.graph.initializer if tensor.name == "b")
    stored.raw_data = bias.tobytes()
    assert spread({level: run_at(broken, feeds, level) for level in LEVELS}) > 0.01


@pytest.mark.parametrize("kind", SINGLE)
def test_insert_qdq_sixteen_bit_weight_behind_quantized_input_is_the_same_at_all_levels(kind: str) -> None:
    rng = np.random.default_rng(3)
    weight = (rng.standard_normal(SINGLE[kind][2]) * 10.0 ** rng.uniform(-2, 0, SINGLE[kind][2])).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    model, feeds = single(kind, weight, bias), feed(kind, rng)
    key = hand_graph(model).layers[0].key
    activations = {"x": range_params(0.0, 4.0, 8), "r": range_params(0.0, 9.0, 8)}
    written = insert_qdq(model, hand_graph(model), {key: QuantizedWeight(weight, None, bias, 1.0)}, activations)
    assert spread({level: run_at(written, feeds, level) for level in LEVELS}) < 1e-5
    restored = next(t for t in read_qdq(written).proto.graph.initializer if t.name == "w")
    assert relative(numpy_helper.to_array(restored), weight) < 2e-5
    assert "w" not in read_qdq(written).weight_bits


def test_float_weight_behind_quantized_input_is_rounded_by_the_runtime() -> None:
    rng = np.random.default_rng(3)
    weight = (rng.standard_normal((6, 4, 3, 3)) * 10.0 ** rng.uniform(-2, 0, (6, 1, 1, 1))).astype(np.float32)
    model, feeds = single("Conv", weight, np.zeros(6, np.float32)), feed("Conv", rng)
    activations = {"x": range_params(0.0, 4.0, 8), "r": range_params(0.0, 9.0, 8)}
    broken = insert_qdq(model, hand_graph(model), {}, activations)
    assert spread({level: run_at(broken, feeds, level) for level in LEVELS}) > 0.02


@pytest.mark.parametrize("name", ["gemm", "matmul", "attention"])
@pytest.mark.parametrize("bits", [3, 8])
def test_insert_qdq_weights_alone_equal_reference_with_exact_accuracy_level(name: str, bits: int) -> None:
    quantized = QuantizedCase.of(name)
    written = insert_qdq(quantized.case.model, quantized.graph, quantized.weights(bits), {})
    expected = run_reference(quantized.case.model, quantized.graph, quantized.weights(bits), {}, quantized.case.feeds)[
        "y"
    ]
    for level in LEVELS:
        found = run_at(written, quantized.case.feeds, level, qdq_matmulnbits_accuracy_level="1")
        assert relative(found, expected) < 1e-5


def test_weights_alone_at_default_accuracy_level_are_computed_with_rounded_inputs() -> None:
    quantized = QuantizedCase.of("matmul")
    written = insert_qdq(quantized.case.model, quantized.graph, quantized.weights(8), {})
    expected = run_reference(quantized.case.model, quantized.graph, quantized.weights(8), {}, quantized.case.feeds)["y"]
    assert relative(run_at(written, quantized.case.feeds, "all"), expected) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_insert_qdq_each_stored_tensor_has_one_quantizer_that_all_consumers_read(name: str) -> None:
    quantized = QuantizedCase.of(name)
    stored = quantized.activations(4)
    written = quantized.written(4, 4)
    quantizers = [node for node in written.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(node.input[0] for node in quantizers) == sorted(stored)
    restored = {node.output[0] for node in written.graph.node if node.op_type == "DequantizeLinear"}
    assert not [node for node in quantizers if node.input[0] in restored], "two quantizers in series"
    for node in written.graph.node:
        if node.op_type != "QuantizeLinear":
            assert not set(node.input) & set(stored), f"{node.op_type} reads a tensor past its quantizer"


def test_insert_qdq_weight_zero_points_are_never_shared() -> None:
    written = QuantizedCase.of("residual").written(8, 8)
    constants = {tensor.name for tensor in written.graph.initializer}
    zeros = [n.input[2] for n in written.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    assert len(zeros) == 3 and len(set(zeros)) == 3


def test_shared_weight_zero_points_do_not_open_with_exact_kernels() -> None:
    quantized = QuantizedCase.of("residual")
    written = quantized.written(8, 8)
    nodes = [
        node for node in written.graph.node if node.op_type == "DequantizeLinear" and node.output[0] in ("w1", "w2")
    ]
    nodes[1].input[2] = nodes[0].input[2]
    with pytest.raises(Exception, match="replace the existing tensor"):
        run_at(written, quantized.case.feeds, "all")


def test_insert_qdq_grouped_conv_transpose_shares_scales_across_groups() -> None:
    rng = np.random.default_rng(4)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> grouped (float[n,4,5,5] x) => (float[n,6,11,11] y)'
        "{ c = ConvTranspose <group=2, strides=[2,2]> (x, w, b) y = Relu (c) }"
    )
    weight, bias = rng.standard_normal((4, 3, 3, 3)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    weight[:, 1] = 0.0
    model.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
    feeds = {"x": rng.uniform(0, 3, (2, 4, 5, 5)).astype(np.float32)}
    weights = {"c": quantize_weight(weight, 1, 6, bias=None)}
    weights = {"c": replace(weights["c"], bias=bias)}
    activations = {"x": range_params(0.0, 3.0, 5), "y": range_params(0.0, 8.0, 8)}
    expected = run_reference(model, hand_graph(model), weights, activations, feeds)["c"]
    written = insert_qdq(model, hand_graph(model), weights, {"x": activations["x"]})
    for level in LEVELS:
        assert relative(run_at(written, feeds, level), np.maximum(expected, 0)) < 1e-5


def test_insert_qdq_tiny_weights_keep_float32_scales() -> None:
    rng = np.random.default_rng(5)
    weight = (rng.standard_normal((6, 4, 3, 3)) * 1e-6).astype(np.float32)
    model, feeds = single("Conv", weight, np.zeros(6, np.float32)), feed("Conv", rng)
    weights = {"c": quantize_weight(weight, 0, 8, bias=np.zeros(6, np.float32))}
    activations = {"x": range_params(0.0, 4.0, 8), "r": range_params(0.0, 5e-5, 8)}
    written = insert_qdq(model, hand_graph(model), weights, activations)
    scale = next(tensor for tensor in written.graph.initializer if tensor.name == "w_scale")
    assert scale.data_type == TensorProto.FLOAT and numpy_helper.to_array(scale).max() < 6e-5
    expected = run_reference(model, hand_graph(model), weights, activations, feeds)["y"]
    assert relative(run_at(written, feeds, "disable"), expected) < 1e-5


def test_insert_qdq_integers_are_raw_bytes_and_int32_is_never_dequantized() -> None:
    for bits in (3, 7):
        written = QuantizedCase.of("pooling").written(bits, 5)
        integers = [
            t
            for t in written.graph.initializer
            if t.data_type in (TensorProto.INT4, TensorProto.INT8, TensorProto.UINT8)
        ]
        assert integers and all(tensor.raw_data and not tensor.int32_data for tensor in integers)
        assert not [tensor for tensor in written.graph.initializer if tensor.data_type == TensorProto.INT32]


@pytest.mark.parametrize("bits", range(2, 9))
def test_insert_qdq_container_of_each_weight_width(bits: int) -> None:
    written = QuantizedCase.of("chain").written(bits, 8)
    found = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert found["w1_quantized"] == (TensorProto.INT4 if bits <= 4 else TensorProto.INT8)


@pytest.mark.parametrize("bits", range(2, 9))
def test_insert_qdq_clip_only_below_eight_bits(bits: int) -> None:
    written = QuantizedCase.of("chain").written(8, bits)
    clips = [node for node in written.graph.node if node.op_type == "Clip"]
    assert len(clips) == (3 if bits < 8 else 0)


def test_insert_qdq_weight_shared_by_two_layers_changes_for_each_alone() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> tied (float[n,4,4,4] x) => (float[n,4,4,4] y)'
        "{ c = Conv (x, w) r = Relu (c) y = Conv (r, w) }"
    )
    weight = np.random.default_rng(6).standard_normal((4, 4, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    feeds = {"x": np.random.default_rng(7).standard_normal((2, 4, 4, 4)).astype(np.float32)}
    weights = {"c": quantize_weight(weight, 0, 8), "y": quantize_weight(weight, 0, 3)}
    for chosen in (weights, {"y": weights["y"]}):
        expected = run_reference(model, hand_graph(model), chosen, {}, feeds)["y"]
        written = insert_qdq(model, hand_graph(model), chosen, {})
        assert relative(run_at(written, feeds, "disable"), expected) < 1e-5


def test_insert_qdq_keeps_declarations_and_foreign_metadata_and_the_source_untouched() -> None:
    quantized = QuantizedCase.of("residual")
    model = quantized.case.model
    model.metadata_props.add(key="author", value="someone")
    before = model.SerializeToString(deterministic=True)
    written = quantized.written(3, 4)
    assert model.SerializeToString(deterministic=True) == before
    assert list(written.graph.input) == list(model.graph.input) and list(written.graph.output) == list(
        model.graph.output
    )
    assert {entry.key: entry.value for entry in written.metadata_props}["author"] == "someone"
    onnx.checker.check_model(written, full_check=True)


def test_insert_qdq_names_already_taken_get_a_number() -> None:
    quantized = QuantizedCase.of("chain")
    model = onnx.ModelProto()
    model.CopyFrom(quantized.case.model)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.0), "x_dq"))
    written = insert_qdq(model, quantized.graph, quantized.weights(8), quantized.activations(8))
    assert relative(run_at(written, quantized.case.feeds, "disable"), quantized.reference(8, 8)) < 1e-5


def test_insert_qdq_unknown_layer_tensor_width_or_dialect_is_refused_by_name() -> None:
    quantized = QuantizedCase.of("chain")
    model, graph, weights = quantized.case.model, quantized.graph, quantized.weights(8)
    with pytest.raises(PlanError, match="layer 'nowhere'"):
        insert_qdq(model, graph, {"nowhere": weights["c1"]}, {})
    with pytest.raises(PlanError, match="tensor 'nowhere'"):
        insert_qdq(model, graph, {}, {"nowhere": range_params(0, 1, 8)})
    with pytest.raises(PlanError, match=r"'r1'.*width 9.*2, 3, 4, 5, 6, 7, 8"):
        insert_qdq(model, graph, {}, {"r1": QuantParams(np.float32(1), np.int32(0), 9, False, None)})
    with pytest.raises(UsageError, match=r"dialect 'ortt' \(did you mean 'ort'"):
        insert_qdq(model, graph, weights, {}, dialect="ortt")


def test_insert_qdq_bias_on_a_matmul_without_an_add_is_refused() -> None:
    quantized = QuantizedCase.of("left_weight")
    weight = replace(quantized.weights(8)["m1"], bias=np.zeros(9, np.float32))
    with pytest.raises(PlanError, match=r"layer 'm1' \(MatMul\): no constant Add"):
        insert_qdq(quantized.case.model, quantized.graph, {"m1": weight}, {})
