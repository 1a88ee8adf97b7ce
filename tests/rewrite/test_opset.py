"""The opset is raised only where a plan needs it, and only if the model then computes the same."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hwc_onnx.graph.read_qdq import read_qdq
from hwc_onnx.rewrite.opset import model_opset, raise_opset, same_outputs
from tests.rewrite.quantized_case import LEVELS, QuantizedCase, relative, run_at


@pytest.mark.parametrize(("bits", "expected"), [(8, 17), (5, 17), (4, 21), (2, 21)])
def test_insert_qdq_raises_the_opset_only_for_four_bits_and_below(bits: int, expected: int) -> None:
    quantized = QuantizedCase.of("pooling", opset=17)
    written = quantized.written(bits, 6)
    assert model_opset(written) == expected
    assert written.ir_version >= (10 if expected == 21 else 8)
    reference = quantized.reference(bits, 6)
    assert all(relative(run_at(written, quantized.case.feeds, level), reference) < 1e-5 for level in LEVELS)


def test_insert_qdq_stays_in_int8_and_says_so_when_the_converter_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no adapter for this operator")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    quantized = QuantizedCase.of("chain", opset=17)
    with caplog.at_level(logging.WARNING):
        written = quantized.written(3, 8)
    assert "opset 17 stays" in caplog.text and "no adapter" in caplog.text
    found = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert found["w1_quantized"] == TensorProto.INT8 and model_opset(written) == 17
    assert set(read_qdq(written).weight_bits.values()) == {3}
    assert relative(run_at(written, quantized.case.feeds, "all"), quantized.reference(3, 8)) < 1e-5


def test_raise_opset_refuses_a_model_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model = QuantizedCase.of("chain", opset=17).case.model

    def corrupt(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        changed.opset_import[0].version = version
        bias = next(tensor for tensor in changed.graph.initializer if tensor.name == "b2")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * np.float32(1.001), "b2"))
        return changed

    monkeypatch.setattr(onnx.version_converter, "convert_version", corrupt)
    assert raise_opset(model, 21) is None
    assert raise_opset(model, 21, check=False) is not None


def test_raise_opset_keeps_declarations_and_metadata_and_makes_constants_initializers() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> reduce (float[batch,4,6] x) => (float[batch,6] y)'
        "{ y = ReduceMean <axes=[1], keepdims=0> (x) }"
    )
    model.metadata_props.add(key="author", value="someone")
    raised = raise_opset(model, 21)
    assert raised is not None and model_opset(raised) == 21 and raised.ir_version >= 10
    assert list(raised.graph.input) == list(model.graph.input) and list(raised.graph.output) == list(model.graph.output)
    assert [node.op_type for node in raised.graph.node] == ["ReduceMean"]
    assert [entry.key for entry in raised.metadata_props] == ["author"]
    assert same_outputs(model, raised)


def test_raise_opset_at_or_above_returns_the_same_object() -> None:
    model = QuantizedCase.of("chain").case.model
    assert raise_opset(model, 13) is model


def test_raise_opset_compares_at_the_sizes_that_were_given(caplog: pytest.LogCaptureFixture) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> pool (float[n,4,length] x) => (float[n,4] y)'
        "{ y = ReduceMean <axes=[2], keepdims=0> (x) }"
    )
    raised = raise_opset(model, 21, shapes={"x": (1, 4, 6)})
    assert raised is not None and model_opset(raised) == 21 and not caplog.text
    assert raise_opset(model, 21) is None
    assert "does not run" in caplog.text
