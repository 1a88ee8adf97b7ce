"""Whose operators can be computed here, and whose are left alone."""

from __future__ import annotations

import onnx

from hwc_onnx.graph.model_view import reads, subgraphs
from hwc_onnx.graph.structure import label

RUNTIME_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Operator domains that ONNX Runtime's CPU provider implements."""


def is_foreign(node: onnx.NodeProto) -> bool:
    """Whether a node, or one in its subgraphs, belongs to a domain that ONNX Runtime does not implement."""
    return bool(foreign_domain(node))


def foreign_domain(node: onnx.NodeProto) -> str:
    """The foreign domain of a node, or of the first node inside that has one (empty: none)."""
    if node.domain not in RUNTIME_DOMAINS:
        return str(node.domain)
    inside = (foreign_domain(inner) for graph in subgraphs(node) for inner in graph.node)
    return next((domain for domain in inside if domain), "")


def foreign_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that cannot be computed here; local functions must have been inlined."""
    return [node for node in proto.graph.node if is_foreign(node)]


def behind_foreign(proto: onnx.ModelProto) -> set[str]:
    """Tensors that cannot be computed because a foreign node comes before them (nodes in order)."""
    tainted: set[str] = set()
    for node in proto.graph.node:
        if is_foreign(node) or not tainted.isdisjoint(reads(node)):
            tainted.update(name for name in node.output if name)
    return tainted


def obstacle_to_running(proto: onnx.ModelProto) -> str | None:
    """Which operator ONNX Runtime does not implement, None where it can run the model; functions must be inlined."""
    foreign = foreign_nodes(proto)
    if not foreign:
        return None
    return (
        f"{label(foreign[0])} belongs to domain '{foreign_domain(foreign[0])}', which ONNX Runtime does not implement"
    )
