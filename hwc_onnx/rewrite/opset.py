"""Raise a model's opset to the lowest that carries a plan, or leave it alone.

INT4 and INT16 weights need opset 21, per-axis DequantizeLinear 13. The raised model must compute the same (rtol 1e-5);
a model that the converter cannot raise, or raises wrongly, stays as it is, and the caller falls back to a container
that its opset has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import run_for, shapes_at_batch
from hwc_onnx.normalize.compare import random_feeds
from hwc_onnx.normalize.raising import converted

logger = logging.getLogger(__name__)

RTOL = 1e-5


def model_opset(proto: onnx.ModelProto) -> int:
    """The version of the default operator set (1 when none is declared)."""
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def ensure_ir_version(proto: onnx.ModelProto) -> None:
    """Set `ir_version` to the lowest that the model's opsets allow, never lowering it (in place)."""
    table = helper.OP_SET_ID_VERSION_MAP
    needed = max((table.get((entry.domain or "ai.onnx", entry.version), 0) for entry in proto.opset_import), default=0)
    proto.ir_version = max(proto.ir_version, needed)


def raise_opset(
    proto: onnx.ModelProto, opset: int, check: bool = True, shapes: Mapping[str, Sequence[int]] | None = None
) -> onnx.ModelProto | None:
    """`proto` at `opset` or above: itself when it already is, None when that cannot be done.

    `check` runs both models on random input, of these `shapes` where the model leaves sizes open, and refuses a raised one
    that computes something else.
    """
    if model_opset(proto) >= opset:
        return proto
    raised = converted(proto, opset)
    if raised is None:
        return None
    _restore_declarations(raised, proto)
    if check and not same_outputs(proto, raised, shapes=shapes):
        logger.warning("opset %d stays: raised to %d, the model computes something else or does not run", model_opset(proto), opset)
        return None
    return raised


def same_outputs(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    rtol: float = RTOL,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> bool:
    """Whether two float models agree on random input, within `rtol` of each output's largest magnitude.

    False as well when sizes stay open that `shapes` does not settle, so that nothing can be run.
    """
    outputs = [value.name for value in before.graph.output]
    for batch in (2, 1):
        try:
            feeds = random_feeds(before, shapes_at_batch(before, shapes, batch))
        except ModelError:
            return False
        expected = run_for(before, feeds, outputs)
        found = run_for(after, feeds, outputs) if expected is not None else None
        if expected is not None:
            return found is not None and all(_close(expected[name], found[name], rtol) for name in outputs)
    return False


def _close(first: np.ndarray, second: np.ndarray, rtol: float) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    largest = float(np.abs(first[np.isfinite(first)]).max(initial=0.0))
    return bool(np.allclose(first, second, rtol=rtol, atol=rtol * largest, equal_nan=True))


def _restore_declarations(raised: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """What the converter must not change: declared shapes, metadata. Its new constants become initializers."""
    for field in ("input", "output", "value_info"):
        values = getattr(raised.graph, field)
        del values[:]
        values.extend(getattr(original.graph, field))
    del raised.metadata_props[:]
    raised.metadata_props.extend(original.metadata_props)
    known = {name for node in original.graph.node for name in node.output}
    kept = []
    for node in raised.graph.node:
        if node.op_type == "Constant" and node.output[0] not in known and node.attribute[0].HasField("t"):
            tensor = raised.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            kept.append(copy)
    del raised.graph.node[:]
    raised.graph.node.extend(kept)
    ensure_ir_version(raised)
