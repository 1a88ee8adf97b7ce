"""QCDQ's Clips and TensorRT's blocks leave every number as it is, and are read back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hwc_onnx.graph.packing import integer_values
from hwc_onnx.graph.read_qdq import BITS_KEY, read_qdq
from hwc_onnx.quantization.dialects import DIALECT_KEY
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams
from hwc_onnx.rewrite.cleanup import set_metadata
from hwc_onnx.rewrite.dialect_forms import block_weights, clip_weights
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.dialects.written import PAIRS, constant, equal_but_for_ties, expected, step, within_a_step, written
from tests.rewrite.hand_graph import hand_graph
from tests.rewrite.quantized_case import LEVELS, QuantizedCase, relative, run_at, spoil_clip
from tests.rewrite.small_models import NAMES


@pytest.mark.parametrize("dialect", ["qcdq", "openvino", "qonnx", "tensorrt"])
@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_opens_in_onnxruntime_and_equals_the_integer_reference(name: str, dialect: str) -> None:
    quantized = QuantizedCase.of(name)
    for weight_bits, activation_bits in PAIRS:
        if dialect == "tensorrt" and activation_bits < 8:
            continue
        data = written(quantized, dialect, weight_bits, activation_bits).SerializeToString()
        wanted, size = expected(quantized, dialect, weight_bits, activation_bits), step(quantized, dialect, activation_bits)
        assert equal_but_for_ties(run_at(data, quantized.case.feeds, "disable"), wanted, size)
        assert all(within_a_step(run_at(data, quantized.case.feeds, level), wanted, size) for level in LEVELS)


def test_a_clip_one_too_low_fails_the_oracle() -> None:
    quantized = QuantizedCase.of("chain")
    spoiled = spoil_clip(written(quantized, "qcdq", 4, 4), "z")
    found, wanted = run_at(spoiled, quantized.case.feeds, "disable"), expected(quantized, "qcdq", 4, 4)
    assert not equal_but_for_ties(found, wanted, step(quantized, "qcdq", 4))


@pytest.mark.parametrize("bits", [3, 5, 7])
def test_widths_of_a_qcdq_file_are_in_the_graph_alone(bits: int) -> None:
    model = written(QuantizedCase.of("residual"), "qcdq", bits, 8)
    clips = [node for node in model.graph.node if node.op_type == "Clip"]
    assert len(clips) == 3 and all(constant(model, node.input[0]).data_type == TensorProto.INT8 for node in clips)
    bounds = {int(numpy_helper.to_array(constant(model, name))) for node in clips for name in node.input[1:]}
    assert bounds == {-(2 ** (bits - 1)), 2 ** (bits - 1) - 1}
    with_metadata = dict(read_qdq(model).weight_bits)
    set_metadata(model, {})
    assert dict(read_qdq(model).weight_bits) == with_metadata == {"w1": bits, "w2": bits, "w3": bits}


def test_integers_that_a_clip_changes_are_read_as_changed() -> None:
    model = written(QuantizedCase.of("chain"), "qcdq", 4, 8)
    node = next(node for node in model.graph.node if node.op_type == "Clip")
    low = constant(model, node.input[1])
    low.CopyFrom(numpy_helper.from_array(np.array(-1, np.int8), low.name))
    weight = next(name for name in read_qdq(model).weight_bits if name.startswith("w1"))
    values = numpy_helper.to_array(constant(read_qdq(model).proto, weight))
    scale = read_qdq(model).weight_scale[weight]
    assert np.rint(values / scale).min() == -1


def test_eight_bit_weights_and_other_dialects_have_no_clip() -> None:
    quantized = QuantizedCase.of("chain")
    assert not [node for node in written(quantized, "qcdq", 8, 8).graph.node if node.op_type == "Clip"]
    assert not [node for node in written(quantized, "openvino", 4, 8).graph.node if node.op_type == "Clip"]


def test_a_mirrored_two_bit_channel_is_clipped_to_what_it_holds() -> None:
    quantized = QuantizedCase.of("chain")
    weights = dict(quantized.weights(2))
    codes = np.array(weights["c1"].codes)
    codes[0], codes[1] = np.resize([-1, 0, 2], codes[0].shape), np.resize([-2, 0, 1], codes[1].shape)
    weights["c1"] = QuantizedWeight(codes, weights["c1"].params, weights["c1"].bias, 1.0)
    model = insert_qdq(quantized.case.model, quantized.graph, weights, quantized.activations(8), "qcdq")
    assert dict(read_qdq(model).weight_bits) == {"w1": 2, "w2": 2}
    stored = next(node for node in model.graph.node if node.op_type == "Clip")
    low, high = (int(numpy_helper.to_array(constant(model, name))) for name in stored.input[1:])
    assert (low, high) == (-2, 2)


def test_only_files_of_other_dialects_name_theirs() -> None:
    quantized = QuantizedCase.of("chain")
    names = {}
    for dialect in ("ort", "openvino", "qcdq", "qonnx", "tensorrt"):
        metadata = {entry.key: entry.value for entry in written(quantized, dialect, 8, 8).metadata_props}
        names[dialect] = metadata.get(DIALECT_KEY)
    assert names == {"ort": None, "openvino": "openvino", "qcdq": "qcdq", "qonnx": "qonnx", "tensorrt": "tensorrt"}


def product(op: str, shape: tuple[int, int], bits: int) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, np.ndarray]]:
    """A product with a float input and a weight of a few bits: the float model, the quantized one, and an input."""
    rng = np.random.default_rng(5)
    columns = shape[0] if op == "Gemm <transB=1>" else shape[1]
    rows = shape[1] if op == "Gemm <transB=1>" else shape[0]
    text = f'<ir_version: 10, opset_import: ["": 17]> m (float[n,{rows}] x) => (float[n,{columns}] y) {{ y = {op} (x, w) }}'
    model = onnx.parser.parse_model(text)
    axis = 0 if op == "Gemm <transB=1>" else 1
    limit = 2 ** (bits - 1) - 1
    codes = rng.integers(-limit, limit + 1, shape).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, columns).astype(np.float32)
    along = scale.reshape((-1, 1) if axis == 0 else (1, -1))
    model.graph.initializer.append(numpy_helper.from_array((codes * along).astype(np.float32), "w"))
    params = QuantParams(scale, np.zeros(columns, np.int32), bits, True, axis)
    graph = hand_graph(model)
    weights = {graph.layers[0].key: QuantizedWeight(codes, params, None, 1.0)}
    quantized = insert_qdq(model, graph, weights, {}, "tensorrt")
    return model, quantized, {"x": rng.standard_normal((5, rows)).astype(np.float32)}


@pytest.mark.parametrize(
    ("op", "shape", "axis", "block"),
    [("MatMul", (256, 6), 0, 128), ("MatMul", (192, 6), 0, 64), ("Gemm", (64, 4), 0, 64), ("Gemm <transB=1>", (5, 128), 1, 128)],
)
@pytest.mark.parametrize("bits", [3, 4])
def test_a_weight_behind_a_float_input_is_stored_in_int4_blocks(
    op: str, shape: tuple[int, int], axis: int, block: int, bits: int
) -> None:
    model, quantized, feeds = product(op, shape, bits)
    node = next(node for node in quantized.graph.node if node.op_type == "DequantizeLinear")
    attributes = {entry.name: entry.i for entry in node.attribute}
    assert attributes == {"axis": axis, "block_size": block}
    blocks = [size // block if place == axis else size for place, size in enumerate(shape)]
    assert constant(quantized, node.input[0]).data_type == constant(quantized, node.input[2]).data_type == TensorProto.INT4
    assert list(constant(quantized, node.input[1]).dims) == list(constant(quantized, node.input[2]).dims) == blocks
    assert next(entry.version for entry in quantized.opset_import) == 21
    assert dict(read_qdq(quantized).weight_bits) == {"w": bits}
    entries = {"qdq_matmulnbits_accuracy_level": "1"}
    for level in LEVELS:
        assert relative(run_at(quantized, feeds, level, **entries), run_at(model, feeds, "disable")) <= 1e-5


def test_a_block_with_another_scale_fails_the_oracle() -> None:
    model, quantized, feeds = product("MatMul", (256, 6), 4)
    node = next(node for node in quantized.graph.node if node.op_type == "DequantizeLinear")
    scale = constant(quantized, node.input[1])
    values = numpy_helper.to_array(scale).copy()
    values[1, 2] *= 1.01
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))
    assert relative(run_at(quantized, feeds, "disable"), run_at(model, feeds, "disable")) > 1e-4


@pytest.mark.parametrize(
    ("op", "shape", "bits"), [("MatMul", (100, 6), 4), ("MatMul", (128, 5), 4), ("MatMul", (128, 6), 2), ("MatMul", (128, 6), 6)]
)
def test_what_fits_no_block_stays_in_int8(op: str, shape: tuple[int, int], bits: int) -> None:
    _, quantized, _ = product(op, shape, bits)
    node = next(node for node in quantized.graph.node if node.op_type == "DequantizeLinear")
    assert constant(quantized, node.input[0]).data_type == TensorProto.INT8
    assert dict(read_qdq(quantized).weight_bits) == {"w": bits}


def test_forms_leave_the_model_that_they_are_given_alone() -> None:
    quantized = QuantizedCase.of("chain")
    model = written(quantized, "openvino", 4, 8)
    before = model.SerializeToString(deterministic=True)
    clipped = clip_weights(model)
    assert model.SerializeToString(deterministic=True) == before and block_weights(model, (64,)) is model
    weights = [integer_values(tensor) for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8]
    again = [integer_values(tensor) for tensor in clipped.graph.initializer if tensor.data_type == TensorProto.INT8 and tensor.dims]
    assert all(np.array_equal(first, second) for first, second in zip(weights, again, strict=False))
    assert {entry.key for entry in clipped.metadata_props} >= {BITS_KEY}
