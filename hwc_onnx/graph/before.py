"""The network that a compressed file was made from, as far as its own graph tells."""

from __future__ import annotations

from dataclasses import replace

from hwc_onnx.graph.layer_graph import FLOAT_BITS, LayerGraph


def unpruned_graph(graph: LayerGraph) -> LayerGraph:
    """The same network with no weight known to be zero."""
    weights = {name for layer in graph.layers for name in (layer.weight, layer.state_weight) if name is not None}
    tensors = {name: replace(info, density=1.0) if name in weights else info for name, info in graph.tensors.items()}
    layers = tuple(
        layer
        if layer.weight is None
        else replace(layer, weight_density=1.0, nm_pattern=None, algorithm="none")
        for layer in graph.layers
    )
    return replace(graph, tensors=tensors, layers=layers)


def float_graph(graph: LayerGraph) -> LayerGraph:
    """The same network with every operand at 16 bits."""
    tensors = {name: replace(info, bits=FLOAT_BITS) for name, info in graph.tensors.items()}
    layers = tuple(
        replace(
            layer,
            weight_bits=FLOAT_BITS,
            activation_bits=FLOAT_BITS,
            output_bits=FLOAT_BITS,
            weight_density=1.0,
            nm_pattern=None,
            algorithm="none",
        )
        for layer in graph.layers
    )
    return replace(graph, tensors=tensors, layers=layers)
