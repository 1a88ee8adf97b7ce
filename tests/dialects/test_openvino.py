"""Files of dialect openvino run in OpenVINO, on integers, and compute what the integers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

pytest.importorskip("openvino", reason="openvino belongs to the extra dev")

from hwc_onnx import api
from hwc_onnx.accuracy.runner import open_session, run
from hwc_onnx.accuracy.statistics import drop_bounds
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import RuntimeFailure
from hwc_onnx.graph.read_qdq import read_qdq
from hwc_onnx.level_agreement import relative_error, same_largest
from hwc_onnx.runtimes.elsewhere import Elsewhere, in_openvino
from hwc_onnx.workspace import load_samples
from tests.dialects.written import PAIRS, equal_but_for_ties, expected, step, within_a_step, written
from tests.rewrite.quantized_case import QuantizedCase, spoil_clip, spoil_zero_point
from tests.rewrite.small_models import NAMES

ROOT = Path(__file__).parents[2]


def opened(model: onnx.ModelProto) -> Elsewhere:
    return in_openvino(model, open_session(model, 1, "disable"))


def outputs(model: onnx.ModelProto, feeds: dict[str, NDArray]) -> NDArray:
    (found,) = opened(model).run(feeds)
    return np.asarray(found)


@pytest.mark.parametrize("name", NAMES)
def test_openvino_equals_the_integer_reference(name: str) -> None:
    quantized = QuantizedCase.of(name)
    for weight_bits, activation_bits in PAIRS:
        found = outputs(written(quantized, "openvino", weight_bits, activation_bits), quantized.case.feeds)
        wanted = expected(quantized, "openvino", weight_bits, activation_bits)
        assert within_a_step(found, wanted, step(quantized, "openvino", activation_bits)), (weight_bits, activation_bits)


@pytest.mark.parametrize("bits", [3, 8])
def test_a_weight_on_the_left_is_stored_wider_and_keeps_its_width(bits: int) -> None:
    quantized = QuantizedCase.of("left_weight")
    model = written(quantized, "openvino", bits, 8)
    stored = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}
    assert stored == {onnx.TensorProto.INT16} and set(read_qdq(model).weight_bits.values()) == {bits}
    with pytest.raises(RuntimeFailure, match="OpenVINO cannot run the file"):
        opened(written(quantized, "qcdq", bits, 8))


@pytest.mark.parametrize(("spoil", "bits"), [(spoil_zero_point, 4), (spoil_clip, 2)])
def test_a_wrong_zero_point_or_bound_fails_the_oracle(spoil, bits: int) -> None:
    quantized = QuantizedCase.of("chain", batch=16)
    found = outputs(spoil(written(quantized, "openvino", 8, bits), "z"), quantized.case.feeds)
    wanted, size = expected(quantized, "openvino", 8, bits), step(quantized, "openvino", bits)
    assert not equal_but_for_ties(found, wanted, size) and not within_a_step(found, wanted, size)


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise", "concat"])
def test_narrow_weights_run_on_integers_in_this_dialect_and_not_in_dialect_ort(name: str) -> None:
    quantized = QuantizedCase.of(name)
    products = sum(layer.weight is not None for layer in quantized.graph.layers)
    assert opened(written(quantized, "openvino", 4, 4)).on_integers == (products, products)
    assert opened(written(quantized, "ort", 4, 4)).on_integers == (0, products)


def test_a_16_bit_weight_behind_a_quantized_input_is_read() -> None:
    quantized = QuantizedCase.of("gemm")
    found = outputs(written(quantized, "openvino", 16, 8), quantized.case.feeds)
    assert within_a_step(found, expected(quantized, "openvino", 16, 8), 1.5 * step(quantized, "openvino", 8))


def test_what_openvino_refuses_is_said_in_its_words() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13, "elsewhere": 1]> m (float[n,2] x) => (float[n,2] y) { y = elsewhere.Odd (x) }'
    )
    plain = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 13]> m (float[n,2] x) => (float[n,2] y) { y = Relu (x) }')
    with pytest.raises(RuntimeFailure, match=r"OpenVINO cannot run the file: No conversion rule .*Odd"):
        in_openvino(model, open_session(plain, 1))


@pytest.mark.parametrize(
    ("name", "setting"),
    [("resnet20", "w4a8"), ("vgg_small", "w4a4"), ("mobilenetv2_small", "w8a8"), ("vit_tiny", "w8a8")],
)
def test_sample_networks_give_the_answers_of_onnxruntime(name: str, setting: str) -> None:
    source, data = ROOT / "sample_models" / f"{name}.onnx", ROOT / "sample_models" / "fashion_mnist.npz"
    plan = api.uniform_plan(source, setting)
    model = api.apply_plan(source, plan=plan, data="synthetic:400", recovery="none", dialect="openvino").proto
    samples = load_samples(data, model, None, None).pool.samples().take(slice(0, 200))
    session = open_session(model, 1, "disable")
    other = in_openvino(model, session)
    reference, found = run(session, samples), run(other, samples)
    assert other.on_integers is not None and other.on_integers[0] == other.on_integers[1]
    assert relative_error(reference, found) < 0.03 and same_largest(reference, found) >= 0.98
    assert samples.labels is not None
    right = [(next(iter(scores.values())).argmax(axis=1) == samples.labels).astype(float) for scores in (reference, found)]
    low, high = drop_bounds(right[0] - right[1])
    assert low <= 0.0 <= high and right[0].mean() > 0.8


def test_a_network_with_one_wrong_quantizer_gives_other_answers() -> None:
    """Broken twin of the comparison above."""
    source = ROOT / "sample_models" / "vgg_small.onnx"
    model = api.apply_plan(
        source, plan=api.uniform_plan(source, "w4a4"), data="synthetic:400", recovery="none", dialect="openvino"
    ).proto
    session = open_session(model, 1, "disable")
    samples = Samples({"image": np.random.default_rng(0).standard_normal((64, 1, 28, 28)).astype(np.float32)}, None)
    reference = run(session, samples)
    spoiled = onnx.ModelProto.FromString(model.SerializeToString())
    clip = next(node for node in spoiled.graph.node if node.op_type == "Clip")
    spoiled.graph.initializer.append(numpy_helper.from_array(np.array(9, np.uint8), "nine"))
    clip.input[2] = "nine"
    assert relative_error(reference, run(opened(spoiled), samples)) > 0.03
