"""Model-local functions are replaced by their bodies: layers, groups and quantizers exist between plain nodes only."""

from __future__ import annotations

import logging

import onnx
import onnx.inliner

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.model_view import opset_of

logger = logging.getLogger(__name__)


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions (itself when it has none).

    Raises:
        ModelError: functions call each other in a circle, or cannot be inlined.
    """
    if not model.functions:
        return model
    versions = {
        entry.version
        for function in model.functions
        for entry in function.opset_import
        if entry.domain in ("", "ai.onnx")
    }
    try:
        plain = onnx.inliner.inline_local_functions(model, convert_version=bool(versions - {opset_of(model)}))
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"model: its local functions cannot be inlined ({' '.join(str(error).split())}); export it without functions"
        ) from error
    left = [f"{function.domain}.{function.name}" for function in plain.functions]
    if left:
        raise ModelError(
            f"model: local function {left[0]} cannot be inlined (its opset differs and cannot be converted); "
            "export it without functions"
        )
    logger.info("inlined %d local functions", len(model.functions))
    return plain
