"""Each fact beyond its bound gives its named finding, and facts within bounds give none but rounding."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from hwc_onnx.diagnosis.causes import findings
from hwc_onnx.diagnosis.facts import Facts
from hwc_onnx.diagnosis.layer_facts import BiasFacts, LayerFacts
from hwc_onnx.diagnosis.tensor_facts import TensorFacts
from hwc_onnx.plan import LayerConfig
from hwc_onnx.workspace import open_float_model
from tests.diagnosis.planted import looked_at, two_convolutions

WEIGHTS = LayerFacts(
    columns=27, groups=1, patches=5000, outputs=8, output_ratio=1.5, top_output=0, top_share=0.2, spread=1.5, input_ratio=1.5,
    outlier=0, rounding_ratio=1.0, dead=0, error=0.01, error_fit=0.01, plain_error=0.02, pruned_error=0.0,
    bias=BiasFacts(0.1, 0, 1e-6),
)
INPUT = TensorFacts("x", 4, 0.0, 6.0, 1.5, 14, 0.004, 0.1, 0.05, softmax=False, constant=False)


@cache
def sound() -> Facts:
    """A layer without a fault, at 4 bits."""
    layer = open_float_model(two_convolutions()).graph.layers[0]
    return Facts(layer, LayerConfig(weight_bits=4, activation_bits=4), "full", WEIGHTS, 0.01, 0.003, (INPUT,), (1.5, 0), False, None)


def names(facts: Facts) -> set[str]:
    return {finding.name for finding in findings(facts)}


def test_a_sound_layer_is_rounded_and_nothing_else() -> None:
    assert names(sound()) == {"coarse_weights", "coarse_input"}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("bias_overflow", {"bias": BiasFacts(4.0, 1, 0.0)}),
        ("bias_grid", {"bias": BiasFacts(0.1, 0, 0.02)}),
        ("not_repaired", {"patches": None}),
        ("outlier_weights", {"rounding_ratio": 5.0, "input_ratio": 20.0}),
        ("few_samples", {"patches": 12}),
        ("few_taps", {"groups": 8, "columns": 9}),
        ("zeros", {"pruned_error": 0.008}),
        ("dead_inputs", {"dead": 3}),
        ("strong_output_channel", {"spread": 20.0, "top_share": 0.9}),
    ],
)
def test_a_fault_of_the_weights_is_named(name: str, changed: dict[str, Any]) -> None:
    assert name in names(replace(sound(), weights=replace(WEIGHTS, **changed)))
    assert name not in names(sound())


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("constant_input", {"low": 2.0, "high": 2.0, "constant": True}),
        ("softmax_input", {"softmax": True}),
        ("outlier_input", {"range_ratio": 9.0}),
        ("outlier_input", {"levels": 1}),
        ("clipping", {"clipped": 0.8}),
    ],
)
def test_a_fault_of_the_input_is_named(name: str, changed: dict[str, Any]) -> None:
    assert name in names(replace(sound(), tensors=(replace(INPUT, **changed),)))
    assert name not in names(sound())


def test_of_a_constant_input_nothing_else_is_said() -> None:
    still = replace(INPUT, low=0.0, high=0.0, constant=True, range_ratio=1.0, levels=1)
    assert names(replace(sound(), tensors=(still,))) == {"coarse_weights", "constant_input"}


def test_dead_inputs_are_the_cause_where_they_are_most() -> None:
    parts = {finding.name: finding.part for finding in findings(replace(sound(), weights=replace(WEIGHTS, dead=20)))}
    assert parts["dead_inputs"] == "weights"
    parts = {finding.name: finding.part for finding in findings(replace(sound(), weights=replace(WEIGHTS, dead=3)))}
    assert parts["dead_inputs"] is None


def test_a_layer_whose_output_never_changes_has_no_absurd_error() -> None:
    """All weights that follow the first convolution's Relu read zeros: its biases are far below zero."""
    model = two_convolutions()
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    for tensor in model.graph.initializer:
        if tensor.name == first.input[2]:
            from onnx import numpy_helper

            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) - 1000.0, tensor.name))
    found = looked_at(model, "w4a4")
    every = [one for suspect in found.suspects for one in (*suspect.remarks, suspect.cause) if one is not None]
    assert any(one.name == "constant_input" for one in every)
    assert all(value < 1e6 for one in every for value in one.numbers.values())
    assert any("one value on all calibration samples" in note for note in found.notes)
