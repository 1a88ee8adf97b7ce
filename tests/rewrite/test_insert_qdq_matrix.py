"""Every width pair on every graph form opens at all four levels and computes what the integers say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from hwc_onnx.export import file_bytes
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.plain_weights import quantize_weight
from tests.rewrite.hand_graph import hand_graph
from tests.rewrite.integer_reference import run_reference
from tests.rewrite.quantized_case import LEVELS, QuantizedCase, relative, run_at, spoil_clip, spoil_zero_point
from tests.rewrite.small_models import NAMES

WIDTHS = range(2, 9)


def exact(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal to 1e-5 relative."""
    return relative(found, expected) <= 1e-5


def within_a_step(found: np.ndarray, expected: np.ndarray, step: float) -> bool:
    """No element further than one quantization step, 99 % within half a step."""
    difference = np.abs(found - expected)
    return bool(difference.max() <= 1.001 * step and np.mean(difference <= 0.5 * step) >= 0.99)


def right(found: np.ndarray, expected: np.ndarray, step: float, level: str) -> bool:
    return exact(found, expected) if level == "disable" else within_a_step(found, expected, step)


def pairs() -> Iterator[tuple[int, int]]:
    return ((weight, activation) for weight in WIDTHS for activation in WIDTHS)


@pytest.mark.parametrize("name", NAMES)
def test_insert_qdq_every_width_pair_opens_at_all_levels_and_equals_integer_reference(name: str) -> None:
    quantized = QuantizedCase.of(name)
    wrong = []
    for weight_bits, activation_bits in pairs():
        data = quantized.written(weight_bits, activation_bits).SerializeToString()
        expected = quantized.reference(weight_bits, activation_bits)
        step = float(quantized.activations(activation_bits)["z"].scale)
        for level in LEVELS:
            found = run_at(data, quantized.case.feeds, level)
            if not right(found, expected, step, level):
                wrong.append((weight_bits, activation_bits, level, np.abs(found - expected).max() / step))
    assert not wrong


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_insert_qdq_zero_point_off_by_one_fails_the_oracle(name: str, level: str) -> None:
    quantized = QuantizedCase.of(name)
    spoiled = spoil_zero_point(quantized.written(4, 4), "z")
    step = float(quantized.activations(4)["z"].scale)
    assert not right(run_at(spoiled, quantized.case.feeds, level), quantized.reference(4, 4), step, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_insert_qdq_clip_at_wrong_bound_fails_the_oracle(name: str, level: str) -> None:
    quantized = QuantizedCase.of(name)
    spoiled = spoil_clip(quantized.written(8, 2), "z")
    step = float(quantized.activations(2)["z"].scale)
    assert not right(run_at(spoiled, quantized.case.feeds, level), quantized.reference(8, 2), step, level)


@pytest.mark.parametrize("bits", WIDTHS)
def test_insert_qdq_symmetric_activations_equal_integer_reference(bits: int) -> None:
    quantized = QuantizedCase.of("residual")
    weights, activations = quantized.weights(8), quantized.activations(bits, symmetric=True)
    model = insert_qdq(quantized.case.model, quantized.graph, weights, activations)
    expected = run_reference(quantized.case.model, quantized.graph, weights, activations, quantized.case.feeds)["y"]
    for level in LEVELS:
        assert right(run_at(model, quantized.case.feeds, level), expected, float(activations["z"].scale), level)


@pytest.mark.parametrize("bits", WIDTHS)
def test_insert_qdq_file_bytes_follow_the_width(bits: int) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> big (float[n,64,4,4] x) => (float[n,64,4,4] y)'
        "{ z = Conv <pads=[1,1,1,1]> (x, w) y = Relu (z) }"
    )
    weight = np.random.default_rng(0).standard_normal((64, 64, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    quantized = insert_qdq(model, hand_graph(model), {"z": quantize_weight(weight, 0, bits)}, {})
    payload = weight.size // 2 if bits <= 4 else weight.size
    overhead = 64 * 4 + 64 + 600  # scales, zero points, names and nodes
    assert payload < file_bytes(quantized) < payload + overhead
    assert file_bytes(quantized) < weight.nbytes / (7 if bits <= 4 else 3.7)
