"""Normalization: any accepted model becomes one canonical float form with the same outputs.

Constants are initializers, shape arithmetic is folded, batch normalization and per-channel constants are part of the
layer before them, no constant is shared between layers. Inputs, outputs and metadata stay as declared. The result is
compared with the original in ONNX Runtime, so a wrong rewrite cannot go unnoticed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.errors import ModelError, RuntimeFailure
from hwc_onnx.graph.infer import infer_shapes, input_shapes_of, run_for
from hwc_onnx.graph.model_view import opset_of
from hwc_onnx.normalize.branches import take_branches
from hwc_onnx.normalize.editing import drop_unused, sort_nodes
from hwc_onnx.normalize.eliminate import eliminate
from hwc_onnx.normalize.fold import fold_constants
from hwc_onnx.normalize.merge import constants_per_node, merge_affine, merge_pads, plain_gemm
from hwc_onnx.normalize.shuffle import gather_shuffles
from hwc_onnx.normalize.widen import widen

logger = logging.getLogger(__name__)

LOWEST_OPSET = 13
"""Per-channel quantizers and axes as operands; older models are raised to it."""

RTOL, ATOL = 1e-4, 1e-5
HALF_TOLERANCE = 300.0
"""How much more a model may differ that rounded each result to half precision before (11 bits against 24)."""


def normalize(proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> onnx.ModelProto:
    """The canonical form of a model; the argument is left alone. Normalizing twice changes nothing more.

    Sizes given in `input_shapes` for axes other than the first are taken as fixed.

    Raises:
        ModelError: an open input shape, or the model does not run in ONNX Runtime.
        RuntimeFailure: the canonical form computes something else (our bug; the message names the output).
    """
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    input_shapes_of(model, input_shapes)
    if opset_of(model) < LOWEST_OPSET:
        model = _raised(model)
    sort_nodes(model)
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
    gather_shuffles(model, shapes)
    merge_affine(model, shapes)
    constants_per_node(model)
    drop_unused(model.graph)
    _compare(proto, model, input_shapes, HALF_TOLERANCE if half else 1.0)
    logger.info("normalized: %d nodes became %d", len(proto.graph.node), len(model.graph.node))
    return model


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        raised = onnx.version_converter.convert_version(model, LOWEST_OPSET)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        raise ModelError(
            f"model: opset {opset_of(model)} cannot be raised to {LOWEST_OPSET} ({str(error).strip()}); "
            f"export it again with opset {LOWEST_OPSET} or later"
        ) from error
    del raised.metadata_props[:]
    raised.metadata_props.extend(model.metadata_props)
    raised.ir_version = max(model.ir_version, 7)
    return raised


def random_feeds(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, NDArray[Any]]:
    """Standard normal values for float inputs, 0 or 1 for integer and boolean ones."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for value in proto.graph.input:
        if value.name in shapes:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            shape = tuple(shapes[value.name])
            drawn = rng.standard_normal(shape) if np.dtype(dtype).kind == "f" else rng.integers(0, 2, shape)
            feeds[value.name] = drawn.astype(dtype)
    return feeds


def _compare(
    before: onnx.ModelProto, after: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None, slack: float
) -> None:
    outputs = [value.name for value in before.graph.output]
    for batch in (2, 1):
        shapes = input_shapes_of(before, input_shapes, batch)
        feeds = random_feeds(before, shapes)
        expected = run_for(before, feeds, outputs)
        if expected is not None:
            break
    else:
        sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise ModelError(
            f"model: does not open or run in ONNX Runtime for inputs {sizes}; check it with onnxruntime first"
        )
    found = run_for(after, feeds, outputs)
    if found is None:
        raise RuntimeFailure("normalization made a model that ONNX Runtime refuses; please report it with the model")
    for name in outputs:
        if not same_values(expected[name], found[name], slack):
            again = run_for(before, feeds, outputs)
            if again is None or not same_values(expected[name], again[name], slack):
                logger.warning("output '%s' is random: two runs of the same model differ, so it was not compared", name)
                continue
            raise RuntimeFailure(f"normalization changed output '{name}'; please report it with the model")


def same_values(first: NDArray[Any], second: NDArray[Any], slack: float = 1.0) -> bool:
    """Equal within `slack` times (rtol 1e-4 and 1e-5 of the largest magnitude, at least 1); NaN equals NaN."""
    if not isinstance(first, np.ndarray) or first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    if first.shape != second.shape:
        return False
    finite = np.abs(first[np.isfinite(first)])
    largest = float(finite.max()) if finite.size else 1.0
    return bool(np.allclose(first, second, rtol=slack * RTOL, atol=slack * ATOL * max(1.0, largest), equal_nan=True))
