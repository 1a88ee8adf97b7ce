"""Normalization: any accepted model becomes one canonical float form with the same outputs.

Constants are initializers, shape arithmetic is folded, batch normalization and per-channel constants are part of the
layer before them, no constant is shared between layers. Inputs, outputs and metadata stay as declared. The result is
compared with the original in ONNX Runtime, so a wrong rewrite cannot go unnoticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import onnx

from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.graph.domains import foreign_nodes
from hwc_onnx.graph.infer import infer_shapes, input_shapes_of
from hwc_onnx.graph.op_kinds import SOFTMAXES
from hwc_onnx.normalize.attention import write_attention
from hwc_onnx.normalize.branches import take_branches
from hwc_onnx.normalize.compare import compare
from hwc_onnx.normalize.contrib import is_contrib, write_contrib
from hwc_onnx.normalize.editing import drop_unused, name_first_outputs, sort_nodes
from hwc_onnx.normalize.eliminate import eliminate
from hwc_onnx.normalize.fold import fold_constants
from hwc_onnx.normalize.functions import inline_functions
from hwc_onnx.normalize.merge import constants_per_node, merge_affine, merge_pads, plain_gemm
from hwc_onnx.normalize.products import plain_products
from hwc_onnx.normalize.quantized_operators import to_quantizers
from hwc_onnx.normalize.raising import raised
from hwc_onnx.normalize.row_softmax import unwrap_softmax
from hwc_onnx.normalize.shuffle import gather_shuffles
from hwc_onnx.normalize.swaps import plain_swaps
from hwc_onnx.normalize.varying import declare_fixed
from hwc_onnx.normalize.vectors import matrix_products
from hwc_onnx.normalize.widen import UNRUNNABLE, float_kinds, widen

logger = logging.getLogger(__name__)

InputShapes = Mapping[str, Sequence[int]] | None

HALF_TOLERANCE = 300.0
"""How much more a model may differ that rounded each result to half precision before (11 bits against 24)."""


def normalize(proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> onnx.ModelProto:
    """The canonical form of a model; the argument is left alone. Normalizing twice changes nothing more.

    Sizes given in `input_shapes` for axes other than the first are taken as fixed.

    Raises:
        ModelError: an open input shape, or the model does not run in ONNX Runtime.
        RuntimeFailure: the canonical form computes something else even without the rewrites that can be left out (our bug;
            the message names the output).
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
    finished = _checked(before, model, input_shapes, HALF_TOLERANCE if half else 1.0, rounding)
    declare_fixed(before, finished, input_shapes)
    logger.info("normalized: %d nodes became %d", len(proto.graph.node), len(finished.graph.node))
    return finished


def _checked(
    before: onnx.ModelProto, model: onnx.ModelProto, input_shapes: InputShapes, slack: float, rounding: bool
) -> onnx.ModelProto:
    """The model with every rewrite that keeps what it computes; one that does not is named and left out."""
    try:
        return _compared(before, _rewritten(model, input_shapes, ()), input_shapes, slack, rounding)
    except RuntimeFailure as failure:
        names = [name for name, _ in REWRITES]
        for skipped in [*((name,) for name in reversed(names)), tuple(names)]:
            try:
                found = _compared(before, _rewritten(model, input_shapes, skipped), input_shapes, slack, rounding)
            except RuntimeFailure:
                continue
            logger.warning("left out, please report it with the model: %s (%s)", ", ".join(skipped), failure)
            return found
        raise


def _rewritten(model: onnx.ModelProto, input_shapes: InputShapes, skipped: tuple[str, ...]) -> onnx.ModelProto:
    """A copy with all rewrites but those that are skipped."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for name, rewrite in REWRITES:
        if name not in skipped:
            rewrite(made, input_shapes)
    constants_per_node(made)
    drop_unused(made.graph)
    return made


def _compared(
    before: onnx.ModelProto, model: onnx.ModelProto, input_shapes: InputShapes, slack: float, rounding: bool
) -> onnx.ModelProto:
    """The model, once it was seen to compute what it did before."""
    try:
        compare(before, model, input_shapes, slack, rounding)
    except ModelError:
        if not float_kinds(before.graph) & UNRUNNABLE:
            raise
        # the CPU has few kernels of these types: what the model means is what its float32 form computes
        widen(before)
        compare(before, model, input_shapes, slack, rounding)
    return model


def _contrib(model: onnx.ModelProto, input_shapes: InputShapes) -> None:
    if any(is_contrib(node) for node in model.graph.node):
        drop_unused(model.graph)
        if write_contrib(model, infer_shapes(model, input_shapes)):
            fold_constants(model, input_shapes)


def _attention(model: onnx.ModelProto, input_shapes: InputShapes) -> None:
    if any(node.op_type == "Attention" for node in model.graph.node):
        drop_unused(model.graph)
        if write_attention(model, infer_shapes(model, input_shapes)):
            fold_constants(model, input_shapes)
            eliminate(model)


def _softmaxes(model: onnx.ModelProto, input_shapes: InputShapes) -> None:
    if any(node.op_type in SOFTMAXES for node in model.graph.node):
        drop_unused(model.graph)
        unwrap_softmax(model, infer_shapes(model, input_shapes))


def _products(model: onnx.ModelProto, input_shapes: InputShapes) -> None:
    drop_unused(model.graph)
    if plain_products(model, infer_shapes(model, input_shapes)):
        fold_constants(model, input_shapes)


def _vectors(model: onnx.ModelProto) -> None:
    matrix_products(model)


def _shuffles_and_constants(model: onnx.ModelProto, input_shapes: InputShapes) -> None:
    drop_unused(model.graph)
    shapes = infer_shapes(model, input_shapes)
    plain_swaps(model, shapes)
    gather_shuffles(model, shapes)
    merge_affine(model, shapes)


REWRITES: tuple[tuple[str, Callable[[onnx.ModelProto, InputShapes], None]], ...] = (
    ("fused operators of ONNX Runtime", _contrib),
    ("Attention in plain operators", _attention),
    ("padding into convolutions", lambda model, _: merge_pads(model)),
    ("factors of a Gemm into its weights", lambda model, _: plain_gemm(model)),
    ("Softmax over the last axis", _softmaxes),
    ("products written as Einsum", _products),
    ("products with vectors", lambda model, _: _vectors(model)),
    ("shuffles, and constants per channel into layers", _shuffles_and_constants),
)
"""Rewrites that a model can do without, in order; each works on the model in place."""


def _name_foreign(model: onnx.ModelProto) -> None:
    """Nodes of foreign domains get a name, in place, by which they are found again behind the rewrites."""
    for node in foreign_nodes(model):
        node.name = node.name or next(name for name in node.output if name)
