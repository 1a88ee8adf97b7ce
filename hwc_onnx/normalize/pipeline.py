"""Normalization: any accepted model becomes one canonical float form with the same outputs.

Constants are initializers, shape arithmetic is folded, batch normalization and per-channel constants are part of the
layer before them, no constant is shared between layers. Inputs, outputs and metadata stay as declared. The result is
compared with the original in ONNX Runtime, so a wrong rewrite cannot go unnoticed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.domains import foreign_nodes
from hwc_onnx.graph.infer import infer_shapes, input_shapes_of
from hwc_onnx.normalize.branches import take_branches
from hwc_onnx.normalize.compare import compare
from hwc_onnx.normalize.editing import drop_unused, name_first_outputs, sort_nodes
from hwc_onnx.normalize.eliminate import eliminate
from hwc_onnx.normalize.fold import fold_constants
from hwc_onnx.normalize.functions import inline_functions
from hwc_onnx.normalize.merge import constants_per_node, merge_affine, merge_pads, plain_gemm
from hwc_onnx.normalize.products import plain_products
from hwc_onnx.normalize.quantized_operators import to_quantizers
from hwc_onnx.normalize.raising import raised
from hwc_onnx.normalize.shuffle import gather_shuffles
from hwc_onnx.normalize.widen import UNRUNNABLE, float_kinds, widen

logger = logging.getLogger(__name__)

HALF_TOLERANCE = 300.0
"""How much more a model may differ that rounded each result to half precision before (11 bits against 24)."""


def normalize(proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> onnx.ModelProto:
    """The canonical form of a model; the argument is left alone. Normalizing twice changes nothing more.

    Sizes given in `input_shapes` for axes other than the first are taken as fixed.

    Raises:
        ModelError: an open input shape, or the model does not run in ONNX Runtime.
        RuntimeFailure: the canonical form computes something else (our bug; the message names the output).
    """
    input_shapes_of(proto, input_shapes)
    model = onnx.ModelProto()
    model.CopyFrom(inline_functions(proto))
    sort_nodes(model)
    name_first_outputs(model.graph)
    _name_foreign(model)
    before = onnx.ModelProto()
    before.CopyFrom(model)
    model = raised(model)
    rounding = to_quantizers(model)
    half = widen(model)
    eliminate(model)
    fold_constants(model, input_shapes)
    while take_branches(model):
        eliminate(model)
        fold_constants(model, input_shapes)
    eliminate(model)
    merge_pads(model)
    plain_gemm(model)
    drop_unused(model.graph)
    shapes = infer_shapes(model, input_shapes)
    if plain_products(model, shapes):
        fold_constants(model, input_shapes)
        drop_unused(model.graph)
        shapes = infer_shapes(model, input_shapes)
    gather_shuffles(model, shapes)
    merge_affine(model, shapes)
    constants_per_node(model)
    drop_unused(model.graph)
    slack = HALF_TOLERANCE if half else 1.0
    try:
        compare(before, model, input_shapes, slack, rounding)
    except ModelError:
        if not float_kinds(before.graph) & UNRUNNABLE:
            raise
        # the CPU has few kernels of these types: what the model means is what its float32 form computes
        widen(before)
        compare(before, model, input_shapes, slack, rounding)
    logger.info("normalized: %d nodes became %d", len(proto.graph.node), len(model.graph.node))
    return model


def _name_foreign(model: onnx.ModelProto) -> None:
    """Nodes of foreign domains get a name, in place, by which they are found again behind the rewrites."""
    for node in foreign_nodes(model):
        node.name = node.name or next(name for name in node.output if name)
