"""Quantize the small models, open them at a level, and spoil written files on purpose."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from hwc_onnx.graph.infer import run_for
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.quantization.histogram import StreamingHistogram
from hwc_onnx.quantization.quantizer import QuantizedWeight, QuantParams
from hwc_onnx.quantization.ranges import activation_params, range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from tests.plain_weights import quantize_weight
from tests.rewrite.hand_graph import hand_graph
from tests.rewrite.integer_reference import run_reference
from tests.rewrite.small_models import Case, case

LEVELS = {
    "disable": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class QuantizedCase:
    """A small model with everything its quantization needs, each part computed once."""

    def __init__(self, model_case: Case) -> None:
        self.case = model_case
        self._activations: dict[tuple[int, bool], dict[str, QuantParams]] = {}
        self._weights: dict[int, dict[str, QuantizedWeight]] = {}

    @classmethod
    def of(cls, name: str, **options: int) -> QuantizedCase:
        return cls(case(name, **options))

    @cached_property
    def graph(self) -> LayerGraph:
        return hand_graph(self.case.model)

    @cached_property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.case.model.graph.initializer}

    @cached_property
    def histograms(self) -> dict[tuple[str, ...], StreamingHistogram]:
        names = [name for group in self.case.groups for name in group if name not in self.case.feeds]
        values = {**run_for(self.case.model, self.case.feeds, names), **self.case.feeds}
        found = {}
        for group in self.case.groups:
            found[group] = StreamingHistogram()
            for name in group:
                found[group].update(values[name])
        return found

    def activations(self, bits: int, symmetric: bool = False) -> dict[str, QuantParams]:
        if (bits, symmetric) in self._activations:
            return self._activations[bits, symmetric]
        found = self._activations[bits, symmetric] = {}
        for group, histogram in self.histograms.items():
            shared = activation_params(histogram, bits, "mse", symmetric)
            for name in group:
                found[name] = range_params(0.0, 1.0, bits) if name in self.case.probabilities else shared
        return found

    def weights(self, bits: int) -> dict[str, QuantizedWeight]:
        if bits in self._weights:
            return self._weights[bits]
        found = self._weights[bits] = {}
        for layer in self.graph.layers:
            if layer.weight is not None:
                bias = None if layer.bias is None else self.arrays[layer.bias]
                weight = self.arrays[layer.weight]
                if bits == 16:
                    found[layer.key] = QuantizedWeight(weight, None, bias, 1.0)
                else:
                    found[layer.key] = quantize_weight(weight, layer.output_axis, bits, bias=bias)
        return found

    def written(self, weight_bits: int, activation_bits: int, purpose: str = "file") -> onnx.ModelProto:
        return insert_qdq(
            self.case.model, self.graph, self.weights(weight_bits), self.activations(activation_bits), purpose=purpose
        )

    def reference(self, weight_bits: int, activation_bits: int) -> NDArray[np.float64]:
        weights, activations = self.weights(weight_bits), self.activations(activation_bits)
        return run_reference(self.case.model, self.graph, weights, activations, self.case.feeds)["y"]


def run_at(model: onnx.ModelProto | bytes, feeds: dict[str, NDArray], level: str, **entries: str) -> NDArray:
    """The first output at one optimisation level, one thread, exact 8-bit kernels."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", entries.pop("precision", "1"))
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def relative(found: NDArray, expected: NDArray) -> float:
    """Largest difference over the largest magnitude."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def spoil_zero_point(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The zero point with which `tensor` is restored, off by one."""
    return _spoil(model, "DequantizeLinear", tensor + "_dq", 2, 1)


def spoil_clip(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The upper bound of the integers of `tensor`, one too low."""
    return _spoil(model, "Clip", tensor + "_clipped", 2, -1)


def _spoil(model: onnx.ModelProto, op_type: str, output: str, position: int, change: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (node,) = (node for node in copy.graph.node if node.op_type == op_type and node.output[0] == output)
    (old,) = (tensor for tensor in copy.graph.initializer if tensor.name == node.input[position])
    value = numpy_helper.to_array(old)
    spoiled = np.array(int(value) + change, value.dtype)
    copy.graph.initializer.append(numpy_helper.from_array(spoiled, "spoiled"))
    node.input[position] = "spoiled"
    return copy
