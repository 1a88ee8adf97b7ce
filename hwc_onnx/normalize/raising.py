"""Older models are raised to the opset that the rewrites are written for; one that cannot be raised stays as it is.

The converter sees the model without its large constants, which no conversion looks into.
"""

from __future__ import annotations

import logging
import math

import onnx

from hwc_onnx.graph.infer import SMALL
from hwc_onnx.graph.model_view import opset_of
from hwc_onnx.graph.structure import RUNTIME_STANDARD

logger = logging.getLogger(__name__)

LOWEST_OPSET = 13
"""Per-channel quantizers and axes as operands; older models are raised to it."""


NORMALIZING_OPSET = 17
"""LayerNormalization; ONNX Runtime has it at any opset, and its optimizer writes it into older models."""

PASSED_BY = "hwc.kept"
"""A domain that the converter does not know, so that it leaves such nodes as they are."""

FAILURES = (RuntimeError, ValueError, onnx.shape_inference.InferenceError, onnx.version_converter.ConvertError)


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at LOWEST_OPSET or above; at NORMALIZING_OPSET, if ONNX Runtime put normalizations into it.

    Where ONNX's converter fails, the model itself: every later step reads both forms of the operators that changed, and
    only writing per-channel quantizers needs the newer opset.
    """
    normalizing = any(node.op_type.endswith("LayerNormalization") for node in model.graph.node)
    opset = NORMALIZING_OPSET if normalizing else LOWEST_OPSET
    if opset_of(model) >= opset:
        return model
    result = converted(model, opset)
    if result is None:
        return model
    result.ir_version = max(model.ir_version, 7)
    return result


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """The model as ONNX's converter writes it at `opset`, metadata kept; None, with a warning, where it fails."""
    light, large = _without_large(model)
    early = [node for node in light.graph.node if node.op_type in RUNTIME_STANDARD and not node.domain]
    if early and opset_of(light) < NORMALIZING_OPSET:
        light.opset_import.append(onnx.helper.make_opsetid(PASSED_BY, 1))
        for node in early:
            node.domain = PASSED_BY
    try:
        result = onnx.version_converter.convert_version(light, opset)
    except FAILURES as error:
        logger.warning(
            "opset %d stays: raising it to %d failed (%s)", opset_of(model), opset, " ".join(str(error).split())
        )
        return None
    for node in result.graph.node:
        if node.domain == PASSED_BY:
            node.domain = ""
    for place, entry in enumerate(result.opset_import):
        if entry.domain == PASSED_BY:
            del result.opset_import[place]
            break
    names = {tensor.name for tensor in large}
    inputs = [value for value in result.graph.input if value.name not in names]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del result.graph.input[:]
    result.graph.input.extend(copies)
    result.graph.initializer.extend(large)
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return result


def _without_large(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    large = [tensor for tensor in model.graph.initializer if math.prod(tensor.dims) > SMALL]
    names = {tensor.name for tensor in large}
    light = onnx.ModelProto()
    light.CopyFrom(model)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    del light.graph.initializer[:]
    light.graph.initializer.extend(kept)
    declared = {value.name for value in light.graph.input}
    light.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in large
        if tensor.name not in declared
    )
    return light, large
