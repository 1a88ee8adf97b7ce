"""The form for measuring candidates computes what the written file computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.rewrite.quantized_case import QuantizedCase, relative, run_at, spoil_clip
from tests.rewrite.small_models import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_insert_qdq_measure_equals_file(name: str) -> None:
    quantized = QuantizedCase.of(name)
    for weight_bits, activation_bits in ((8, 8), (4, 4), (3, 6), (16, 5), (8, 2)):
        step = float(quantized.activations(activation_bits)["z"].scale)
        file = run_at(quantized.written(weight_bits, activation_bits), quantized.case.feeds, "disable")
        measured = run_at(quantized.written(weight_bits, activation_bits, "measure"), quantized.case.feeds, "all")
        assert np.mean(np.abs(file - measured) <= 0.5 * step) >= 0.99, (weight_bits, activation_bits)


def test_insert_qdq_measure_with_weights_one_bit_narrower_differs() -> None:
    quantized = QuantizedCase.of("residual")
    file = run_at(quantized.written(4, 8), quantized.case.feeds, "disable")
    assert relative(run_at(quantized.written(3, 8, "measure"), quantized.case.feeds, "all"), file) > 0.01


def test_insert_qdq_measure_keeps_opset_and_leaves_out_superfluous_limits() -> None:
    quantized = QuantizedCase.of("depthwise", opset=17)
    measured = quantized.written(3, 4, "measure")
    assert measured.opset_import[0].version == 17
    floats = [node for node in measured.graph.node if node.op_type == "Clip" and node.output[0] in ("r1", "r2")]
    assert not floats


@pytest.mark.parametrize("bits", [3, 8])
def test_insert_qdq_measure_limits_inside_the_quantizers_range_become_integer_limits(bits: int) -> None:
    quantized = QuantizedCase.of("depthwise")
    activations = dict(quantized.activations(bits))
    activations |= {"x": range_params(-25.0, 25.0, bits), "r1": range_params(-3.0, 9.0, bits)}
    model, graph, weights = quantized.case.model, quantized.graph, quantized.weights(8)
    measured = insert_qdq(model, graph, weights, activations, purpose="measure")
    feeds = {"x": 8 * quantized.case.feeds["x"]}
    file = run_at(insert_qdq(model, graph, weights, activations), feeds, "disable")
    assert not [node for node in measured.graph.node if node.output[0] == "r1"]
    step = float(activations["z"].scale)
    assert np.mean(np.abs(run_at(measured, feeds, "all") - file) <= 0.5 * step) >= 0.99
    broken = run_at(spoil_clip(measured, "r1"), feeds, "all")
    assert np.mean(np.abs(broken - file) <= 0.5 * step) < 0.9


def test_insert_qdq_measure_residual_branch_has_float_weights() -> None:
    measured = QuantizedCase.of("residual").written(4, 4, "measure")
    types = {tensor.name: tensor.data_type for tensor in measured.graph.initializer}
    assert types["w2"] == onnx.TensorProto.FLOAT and types["w1_quantized"] == onnx.TensorProto.INT8
