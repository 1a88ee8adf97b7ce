"""Which layers a pattern means, and which are therefore compressed."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from hwc_onnx.errors import UsageError
from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.plugins import nearest


def matches(layer: Layer, pattern: str) -> bool:
    """Whether a layer is meant: `re:` and a regular expression, or a glob, of its key, node name or operator type."""
    names = (layer.key, layer.node_name, layer.op_type)
    if pattern.startswith("re:"):
        try:
            expression = re.compile(pattern[3:])
        except re.error as error:
            raise UsageError(
                f"pattern '{pattern}': not a regular expression ({error}); escape it, or use a glob"
            ) from error
        return any(expression.fullmatch(name) for name in names)
    return any(fnmatchcase(name, pattern) for name in names)


def matching(graph: LayerGraph, pattern: str) -> list[Layer]:
    """The layers that a pattern means, in the order of the network.

    Raises:
        UsageError: it means none.
    """
    found = [layer for layer in graph.layers if matches(layer, pattern)]
    if not found:
        known = [layer.key for layer in graph.layers]
        raise UsageError(f"pattern '{pattern}' matches no layer{nearest(pattern, known)}; `hwc-onnx inspect` lists them")
    return found


def selected(graph: LayerGraph, include: tuple[str, ...], exclude: tuple[str, ...]) -> set[str]:
    """Keys of the layers that may be compressed.

    Raises:
        UsageError: a pattern matches no layer, or nothing is left.
    """
    wanted = {layer.key for pattern in include for layer in matching(graph, pattern)}
    left_out = {layer.key for pattern in exclude for layer in matching(graph, pattern)}
    chosen = {layer.key for layer in graph.layers if (not include or layer.key in wanted)} - left_out
    if not chosen:
        raise UsageError("--include and --exclude leave no layer to compress; loosen one of them")
    return chosen
