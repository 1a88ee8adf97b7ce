"""Older models are raised to the opset that the rewrites are written for; one that cannot be raised stays as it is.

The converter sees the model without its large constants, which no conversion looks into.
"""

from __future__ import annotations

import logging
import math

import onnx

from hwc_onnx.graph.infer import SMALL
from hwc_onnx.graph.model_view import opset_of

logger = logging.getLogger(__name__)

LOWEST_OPSET = 13
"""Per-channel quantizers and axes as operands; older models are raised to it."""


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at LOWEST_OPSET or above.

    Where ONNX's converter fails, the model itself: every later step reads both forms of the operators that changed, and
    only writing per-channel quantizers needs the newer opset.
    """
    if opset_of(model) >= LOWEST_OPSET:
        return model
    result = converted(model, LOWEST_OPSET)
    if result is None:
        return model
    result.ir_version = max(model.ir_version, 7)
    return result


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """The model as ONNX's converter writes it at `opset`, metadata kept; None, with a warning, where it fails."""
    light, large = _without_large(model)
    try:
        result = onnx.version_converter.convert_version(light, opset)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        logger.warning(
            "opset %d stays: raising it to %d failed (%s)", opset_of(model), opset, " ".join(str(error).split())
        )
        return None
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
