"""From a plan to a written file with the simplest quantizers there are: what `with_plan` must foretell."""

from __future__ import annotations

import json

import numpy as np
import onnx

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.model_view import ModelView
from hwc_onnx.graph.parse import PATTERN_KEY
from hwc_onnx.graph.pruned import is_coarse, pattern_of
from hwc_onnx.plan import Achieved, CompressionPlan, LayerConfig, channel_choice, group_bits
from hwc_onnx.quantization.quantizer import QuantizedWeight
from hwc_onnx.quantization.ranges import range_params
from hwc_onnx.rewrite.insert_qdq import insert_qdq
from hwc_onnx.rewrite.remove_channels import remove_channels
from tests.plain_weights import quantize_weight


def random_plan(graph: LayerGraph, rng: np.random.Generator) -> CompressionPlan:
    """Widths, fine-grained and coarse-grained pruning at random, within the rules."""
    layers: dict[str, LayerConfig] = {}
    width_of = {group.tensor: int(rng.choice([3, 4, 6, 8, 16])) for group in graph.activation_groups}

    def width(tensor: str) -> int:
        group = graph.activation_group_of(tensor)
        return 16 if group is None else width_of[group.tensor]

    for layer in graph.layers:
        activation = width(layer.inputs[0])
        if layer.weight is None:
            layers[layer.key] = LayerConfig(weight_bits=width(layer.inputs[1]), activation_bits=activation)
            continue
        bits = int(rng.choice([2, 3, 4, 5, 8, 16]))
        name = str(rng.choice(["none", "magnitude", "nm24"]))
        layers[layer.key] = LayerConfig(algorithm=name, ratio=0.5, weight_bits=bits, activation_bits=activation)
    for group in graph.channel_groups:
        if group.locked_because is None and rng.random() < 0.6:
            ratio = float(rng.choice([0.125, 0.25, 0.5]))
            for key in group.producers:
                layers[key] = layers[key].model_copy(update={"algorithm": "l1", "ratio": ratio})
    return CompressionPlan(layers=layers)


def write(
    proto: onnx.ModelProto, graph: LayerGraph, plan: CompressionPlan, rng: np.random.Generator
) -> tuple[onnx.ModelProto, CompressionPlan]:
    """The compressed file of `plan` and the plan with what it achieved."""
    keep = {}
    for group in graph.channel_groups:
        count = channel_choice(plan, group)
        if count is not None:
            keep[group.root] = np.sort(rng.choice(group.channels, count, replace=False))
    smaller = remove_channels(proto, graph, keep)
    view = ModelView(smaller)
    weights, achieved, patterns = {}, {}, {}
    for layer in graph.layers:
        if layer.weight is None:
            continue
        config = plan.layers[layer.key]
        values = view.array(layer.weight).copy()
        pattern = pattern_of(config.algorithm)
        if pattern is not None:
            rows = np.moveaxis(values, layer.input_axis, -1)
            for place in range(rows.shape[-1]):
                rows[..., place] *= place % pattern[1] < pattern[0]
            patterns[layer.key] = list(pattern)
        elif config.algorithm == "magnitude":
            values[np.abs(values) < np.quantile(np.abs(values), config.ratio)] = 0.0
        bias = None if layer.bias is None else view.array(layer.bias)
        if config.weight_bits < 16:
            weights[layer.key] = quantize_weight(
                values, layer.output_axis, config.weight_bits, bias=bias, input_scale=0.02
            )
        else:
            weights[layer.key] = QuantizedWeight(values, None, bias, 1.0)
        codes = weights[layer.key].codes
        group = graph.group_of(layer.key)
        kept = None
        if group is not None and is_coarse(config.algorithm):
            kept = len(keep[group.root]) if group.root in keep else group.channels
        achieved[layer.key] = Achieved(weight_density=float(np.count_nonzero(codes)) / codes.size, kept_channels=kept)
    activations, densities = {}, {}
    for group, bits in zip(graph.activation_groups, group_bits(graph, plan), strict=True):
        for tensor in group.tensors if bits < 16 else ():
            activations[tensor] = range_params(-2.0, 3.0, bits)
            densities[tensor] = float(rng.uniform(0.3, 1.0))
    plan = plan.model_copy(update={"achieved": achieved, "activation_density": densities})
    written = insert_qdq(smaller, graph, weights, activations)
    written.metadata_props.add(key=PATTERN_KEY, value=json.dumps(patterns))
    written.metadata_props.add(key="hwc.activation_density", value=json.dumps(densities))
    return written, plan
