"""Leave nothing behind: nodes and constants that no output depends on, shape notes of tensors that are gone.

A rewrite may stop reading a constant or a tensor; this pass runs once, on a model that is about to be written. It also
records what a reader of the file needs beyond its integers: activation densities and N:M patterns (`annotate`).
"""

from __future__ import annotations

import json

import onnx

from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.graph.model_view import reads
from hwc_onnx.graph.parse import DENSITY_KEY, PATTERN_KEY
from hwc_onnx.graph.zero_pattern import claim_of


def cleanup(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without dead nodes, unread initializers and stale `value_info`; inputs, outputs and order stay."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    needed = {value.name for value in graph.output}
    for index in range(len(graph.node) - 1, -1, -1):
        if any(name in needed for name in graph.node[index].output):
            needed.update(reads(graph.node[index]))
        else:
            del graph.node[index]
    declared = {value.name for value in graph.input}
    for index in range(len(graph.initializer) - 1, -1, -1):
        name = graph.initializer[index].name
        if name not in needed and name not in declared:
            del graph.initializer[index]
    made = {name for node in graph.node for name in node.output}
    for index in range(len(graph.value_info) - 1, -1, -1):
        if graph.value_info[index].name not in made:
            del graph.value_info[index]
    return model


def annotate(proto: onnx.ModelProto, planned: LayerGraph) -> None:
    """Write into `proto` the densities and patterns of zeros of `planned`, the graph with the plan applied (in place).

    Densities are of the tensors in activation groups, share of elements that are not the zero point; patterns are by
    layer key. The integers are counted again on reading, and a pattern is believed only if they follow it.
    """
    stored = {name for group in planned.activation_groups for name in group.tensors}
    densities = {name: planned.tensors[name].density for name in sorted(stored) if name in planned.tensors}
    patterns = {layer.key: claim_of(layer.nm_pattern) for layer in planned.layers if layer.nm_pattern is not None}
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    metadata[DENSITY_KEY] = json.dumps(densities, sort_keys=True)
    if patterns:
        metadata[PATTERN_KEY] = json.dumps(patterns, sort_keys=True)
    set_metadata(proto, metadata)


def set_metadata(proto: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Replace the model's metadata by `metadata` (in place)."""
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
