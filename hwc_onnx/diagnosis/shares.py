"""What one layer answers for in a plan, and the plans in which only that is compressed, or all but that.

A layer's share has three parts: its weights (width and fine-grained pruning), the stored tensors that it reads (their
width, which all their readers share) and the channels that it makes, where the plan removes some (with all layers that
make the same).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from hwc_onnx.diagnosis.bench import IN_FLOAT
from hwc_onnx.graph.layer_graph import FLOAT_BITS, ActivationGroup, ChannelGroup, Layer, LayerGraph
from hwc_onnx.graph.pruned import is_coarse
from hwc_onnx.plan import CompressionPlan, LayerConfig, width_fields

Part = Literal["weights", "input", "channels"]
PARTS: tuple[Part, ...] = ("weights", "input", "channels")


def read_groups(graph: LayerGraph, layer: Layer) -> list[ActivationGroup]:
    """The activation groups that a layer reads, the first operand's first."""
    found = (graph.activation_group_of(name) for name in layer.inputs)
    return list({group.tensor: group for group in found if group is not None}.values())


def removed_group(graph: LayerGraph, plan: CompressionPlan, key: str) -> ChannelGroup | None:
    """The channel group that a layer makes, where the plan removes channels from it."""
    if not is_coarse(plan.layers[key].algorithm):
        return None
    return graph.group_of(key)


def parts_of(graph: LayerGraph, plan: CompressionPlan, key: str) -> list[Part]:
    """The parts of a layer that the plan compresses."""
    layer, config = graph.layer(key), plan.layers[key]
    found: list[Part] = []
    if layer.weight is not None and (config.weight_bits < FLOAT_BITS or _fine(config)):
        found.append("weights")
    if any(bits < FLOAT_BITS for bits in _widths(graph, plan, layer)):
        found.append("input")
    if removed_group(graph, plan, key) is not None and config.ratio > 0:
        found.append("channels")
    return found


def alone(graph: LayerGraph, plan: CompressionPlan, key: str, parts: Collection[Part] = PARTS) -> CompressionPlan:
    """The plan in which only these parts of the layer are compressed, as `plan` says, and everything else is in float."""
    layer, config = graph.layer(key), plan.layers[key]
    layers = dict.fromkeys((other.key for other in graph.layers), IN_FLOAT)
    if "weights" in parts and layer.weight is not None:
        mask = {"algorithm": config.algorithm, "ratio": config.ratio} if _fine(config) else {}
        layers[key] = layers[key].model_copy(update={"weight_bits": config.weight_bits, **mask})
    if "input" in parts:
        for group in read_groups(graph, layer):
            _copy_widths(graph, group, plan.layers, layers)
    if "channels" in parts:
        cut = removed_group(graph, plan, key)
        for other in () if cut is None else cut.producers:
            layers[other] = layers[other].model_copy(update={"algorithm": config.algorithm, "ratio": config.ratio})
    return changed(plan, layers)


def without(graph: LayerGraph, plan: CompressionPlan, key: str) -> CompressionPlan:
    """The plan with the layer's share back in float."""
    layer = graph.layer(key)
    layers = dict(plan.layers)
    cut = removed_group(graph, plan, key)
    for other in (key,) if cut is None else cut.producers:
        layers[other] = layers[other].model_copy(update={"algorithm": "none", "ratio": 0.0})
    if layer.weight is not None:
        layers[key] = layers[key].model_copy(update={"weight_bits": FLOAT_BITS})
    floats = dict.fromkeys(layers, IN_FLOAT)
    for group in read_groups(graph, layer):
        _copy_widths(graph, group, floats, layers)
    return changed(plan, layers)


def tensors_read(graph: LayerGraph, key: str) -> set[str]:
    """The stored tensors of the groups that a layer reads."""
    return {name for group in read_groups(graph, graph.layer(key)) for name in group.tensors}


def with_input_bits(graph: LayerGraph, plan: CompressionPlan, key: str, bits: int) -> CompressionPlan:
    """The plan with the stored tensors that a layer reads at another width, for all who read them."""
    wide = dict.fromkeys(plan.layers, LayerConfig(weight_bits=bits, activation_bits=bits))
    layers = dict(plan.layers)
    for group in read_groups(graph, graph.layer(key)):
        _copy_widths(graph, group, wide, layers)
    return changed(plan, layers)


def with_layer(plan: CompressionPlan, keys: Collection[str], **fields: object) -> CompressionPlan:
    """The plan with other fields of the setting of some layers."""
    return changed(plan, {**plan.layers, **{key: plan.layers[key].model_copy(update=fields) for key in keys}})


def changed(plan: CompressionPlan, layers: dict[str, LayerConfig]) -> CompressionPlan:
    """The plan with other settings, and without the facts that were recorded of the old ones."""
    return plan.model_copy(update={"layers": layers, "achieved": {}, "activation_density": {}})


def _fine(config: LayerConfig) -> bool:
    return config.algorithm != "none" and not is_coarse(config.algorithm)


def _widths(graph: LayerGraph, plan: CompressionPlan, layer: Layer) -> list[int]:
    return [
        getattr(plan.layers[layer.key], field)
        for group in read_groups(graph, layer)
        for field in width_fields(layer, group)
    ]


def _copy_widths(
    graph: LayerGraph, group: ActivationGroup, source: dict[str, LayerConfig], into: dict[str, LayerConfig]
) -> None:
    """Give all readers of a group the widths that `source` has for it."""
    for reader in group.readers:
        fields = {field: getattr(source[reader], field) for field in width_fields(graph.layer(reader), group)}
        into[reader] = into[reader].model_copy(update=fields)
