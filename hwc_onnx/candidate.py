"""From a plan to a runnable model: stitch the layers' entries together, remove channels, insert quantizers.

The result is the graph that would be written, so that what the search measures is what the user gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from hwc_onnx.database import LayerDatabase, Stitched
from hwc_onnx.graph.domains import foreign_nodes
from hwc_onnx.graph.layer_graph import LayerGraph
from hwc_onnx.plan import CompressionPlan
from hwc_onnx.rewrite.insert_qdq import Purpose, insert_qdq
from hwc_onnx.rewrite.passes import Pass, run


@dataclass(frozen=True)
class Candidate:
    """A compressed model and the plan with the facts it achieved (densities, kept channels)."""

    proto: onnx.ModelProto
    plan: CompressionPlan
    stitched: Stitched


def build(
    proto: onnx.ModelProto, graph: LayerGraph, database: LayerDatabase, plan: CompressionPlan, purpose: Purpose = "file"
) -> Candidate:
    """The candidate of `plan`.

    Args:
        proto: the normalised float model that `graph` was parsed from.
        graph: its layer graph.
        database: entries for every setting of the plan (made on demand).
        plan: a setting for every layer.
        purpose: "measure" gives a model that computes the same and runs faster, but cannot be read back.

    Raises:
        PlanError: the plan does not fit the graph.
    """
    return assemble(proto, graph, database.stitch(plan), purpose)


def assemble(proto: onnx.ModelProto, graph: LayerGraph, stitched: Stitched, purpose: Purpose = "file") -> Candidate:
    """The candidate of entries that are already stitched (a rebuilt winner, say).

    Raises:
        RuntimeFailure: a rewrite broke the model; the message names the rewrite and the node. `proto` is as it was.
    """

    def removed(model: onnx.ModelProto) -> onnx.ModelProto:
        return stitched.float_model(model, graph)

    def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
        return insert_qdq(model, graph, stitched.weights, stitched.activations, stitched.plan.dialect, purpose)

    if purpose == "file" and not foreign_nodes(proto):
        compressed = run(proto, [Pass("remove channels", removed), Pass("insert quantizers", quantized)])
    else:
        compressed = quantized(removed(proto))
    return Candidate(compressed, stitched.plan, stitched)
