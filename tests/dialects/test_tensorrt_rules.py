"""Each published rule is met by what dialect tensorrt writes, and broken by a file that breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwc_onnx import api
from hwc_onnx.errors import PlanError, UsageError
from hwc_onnx.graph.packing import integer_tensor
from hwc_onnx.options import Options
from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.runtimes.tensorrt_rules import check_rules
from tests.dialects.test_forms import product
from tests.dialects.written import constant, written
from tests.rewrite.quantized_case import QuantizedCase
from tests.rewrite.small_models import NAMES

ROOT = Path(__file__).parents[2]


def broken(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    return {rule.name: rule.broken for rule in check_rules(model) if not rule.met}


@pytest.mark.parametrize("name", NAMES)
def test_files_of_dialect_tensorrt_meet_every_rule(name: str) -> None:
    quantized = QuantizedCase.of(name)
    for bits in (8, 6, 4, 2):
        assert broken(written(quantized, "tensorrt", bits, 8)) == {}


@pytest.mark.parametrize(("shape", "op"), [((256, 6), "MatMul"), ((6, 64), "Gemm <transB=1>")])
def test_int4_blocks_meet_every_rule(shape: tuple[int, int], op: str) -> None:
    _, model, _ = product(op, shape, 4)
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.INT4, TensorProto.FLOAT}
    assert broken(model) == {}


def test_a_file_of_dialect_ort_breaks_what_it_does_not_keep() -> None:
    found = broken(written(QuantizedCase.of("chain"), "ort", 4, 4))
    assert set(found) == {"integer types", "zero points", "placement", "INT4 blocks"}
    assert "UINT8" in found["integer types"][0] and "Clip" in found["placement"][0]


def test_a_file_of_dialect_qcdq_keeps_the_rules_of_its_weights() -> None:
    assert set(broken(written(QuantizedCase.of("chain"), "qcdq", 4, 8))) == {"integer types", "zero points", "placement"}


def test_a_float_model_breaks_none() -> None:
    assert broken(QuantizedCase.of("chain").case.model) == {}


def first(model: onnx.ModelProto, op_type: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == op_type)


def replace(model: onnx.ModelProto, name: str, tensor: TensorProto) -> None:
    tensor.name = name
    constant(model, name).CopyFrom(tensor)


def weight(model: onnx.ModelProto) -> NodeProto:
    names = {tensor.name for tensor in model.graph.initializer}
    return next(node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in names)


def foreign(model: onnx.ModelProto) -> None:
    first(model, "Relu").domain = "elsewhere"


def unsigned(model: onnx.ModelProto) -> None:
    replace(model, first(model, "QuantizeLinear").input[2], numpy_helper.from_array(np.array(0, np.uint8)))


def no_type(model: onnx.ModelProto) -> None:
    del first(model, "QuantizeLinear").input[2]


def shifted(model: onnx.ModelProto) -> None:
    node = weight(model)
    values = numpy_helper.to_array(constant(model, node.input[2])).copy()
    values[1] = -3
    replace(model, node.input[2], numpy_helper.from_array(values))


def negative(model: onnx.ModelProto) -> None:
    node = weight(model)
    replace(model, node.input[1], numpy_helper.from_array(-numpy_helper.to_array(constant(model, node.input[1]))))


def computed(model: onnx.ModelProto) -> None:
    node = weight(model)
    model.graph.node.insert(0, helper.make_node("Abs", [node.input[1]], ["computed"], name="abs"))
    node.input[1] = "computed"


def between(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    node.output[0], inner = node.output[0] + "_raw", node.output[0]
    model.graph.node.append(helper.make_node("Clip", [node.output[0]], [inner], name="between"))


def per_channel(model: onnx.ModelProto) -> None:
    node = first(model, "QuantizeLinear")
    replace(model, node.input[1], numpy_helper.from_array(np.full(3, 0.1, np.float32)))


def wrong_axis(model: onnx.ModelProto) -> None:
    node = weight(model)
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", 1))
    size = constant(model, node.input[0]).dims[1]
    replace(model, node.input[1], numpy_helper.from_array(np.full(size, 0.1, np.float32)))
    replace(model, node.input[2], numpy_helper.from_array(np.zeros(size, np.int8)))


def too_few(model: onnx.ModelProto) -> None:
    node = weight(model)
    replace(model, node.input[1], numpy_helper.from_array(np.full(5, 0.1, np.float32)))


def nibbles(model: onnx.ModelProto) -> None:
    node = weight(model)
    for position in (0, 2):
        values = numpy_helper.to_array(constant(model, node.input[position])).clip(-8, 7)
        replace(model, node.input[position], integer_tensor("", values, TensorProto.INT4))


def integer_bias(model: onnx.ModelProto) -> None:
    node = first(model, "Conv")
    values = np.zeros(constant(model, node.input[2]).dims, np.int32)
    model.graph.initializer.append(numpy_helper.from_array(values, "bias_q"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "bias_s"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias_q", "bias_s"], ["bias"], name="bias"))
    node.input[2] = "bias"


@pytest.mark.parametrize(
    ("spoil", "rule", "words"),
    [
        (foreign, "operators", r"\(Relu\): domain 'elsewhere'"),
        (unsigned, "integer types", r"\(QuantizeLinear\): UINT8"),
        (no_type, "integer types", r"\(QuantizeLinear\): UINT8"),
        (shifted, "zero points", r"\(DequantizeLinear\): -3"),
        (negative, "scales", r"\(DequantizeLinear\): -"),
        (computed, "scales", r"\(DequantizeLinear\): computed"),
        (between, "placement", r"'between' \(Clip\) between"),
        (per_channel, "activations", r"\(QuantizeLinear\): 3 scales"),
        (wrong_axis, "weights", r"scales on axis 1, .*\(Conv\) has its output channels on axis 0"),
        (too_few, "weights", r"5 scales on axis 0 of \[8, 3, 3, 3\]"),
        (nibbles, "INT4 blocks", r"\[8, 3, 3, 3\]"),
        (integer_bias, "biases", r"\(Conv\): bias 'bias' is INT32"),
    ],
)
def test_a_file_that_breaks_a_rule_is_told_which_and_where(
    spoil: Callable[[onnx.ModelProto], None], rule: str, words: str
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(written(QuantizedCase.of("chain"), "tensorrt", 8, 8))
    spoil(model)
    found = broken(model)
    assert rule in found
    assert any(re.search(words, text) for text in found[rule]), found[rule]


@pytest.mark.parametrize(("blocks", "good"), [(2, True), (4, True), (8, False), (1, False)])
def test_blocks_have_64_or_128_elements(blocks: int, good: bool) -> None:
    _, model, _ = product("MatMul", (256, 6), 4)
    node = weight(model)
    replace(model, node.input[1], numpy_helper.from_array(np.full((blocks, 6), 0.1, np.float32)))
    assert ("INT4 blocks" not in broken(model)) is good


def test_what_tensorrt_does_not_take_is_refused_with_what_to_do() -> None:
    quantized = QuantizedCase.of("chain")
    with pytest.raises(PlanError, match=r"activation width 4; dialect 'tensorrt' writes 8 bits, or 16"):
        written(quantized, "tensorrt", 8, 4)
    with pytest.raises(PlanError, match=r"a 16-bit weight behind an input of 8 bits; dialect 'tensorrt' has no 16-bit"):
        written(quantized, "tensorrt", 16, 8)
    with pytest.raises(PlanError, match=r"tensor 'x': unsigned integers; dialect 'tensorrt'"):
        insert_qdq(quantized.case.model, quantized.graph, {}, {"x": range_params(0.0, 1.0, 8)}, "tensorrt")
    with pytest.raises(UsageError, match=r"activation_bits: 4-6; dialect tensorrt writes 8 bits"):
        Options(dialect="tensorrt", activation_bits=(4, 6))
    assert Options(dialect="tensorrt").activation_bits == (8, 8) and Options(dialect="qcdq").activation_bits == (4, 8)


@pytest.mark.parametrize(("setting", "int4"), [("w8a8", 0), ("w4a16", 8)])
def test_a_transformer_in_dialect_tensorrt_meets_every_rule(setting: str, int4: int) -> None:
    source = ROOT / "sample_models" / "vit_tiny.onnx"
    plan = api.uniform_plan(source, setting)
    applied = api.apply_plan(source, plan=plan, data="synthetic:400", recovery="none", dialect="tensorrt")
    assert broken(applied.proto) == {} and applied.plan.dialect == "tensorrt"
    blocked = [tensor for tensor in applied.proto.graph.initializer if tensor.data_type == TensorProto.INT4]
    assert len(blocked) >= int4 and (int4 > 0) == bool(blocked)
    assert api.profile(applied.proto).cost.total == pytest.approx(applied.cost.total, rel=1e-9)
