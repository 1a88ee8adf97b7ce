"""Static shapes: every tensor's shape and type for one concrete input shape.

ONNX shape inference does most of it, on a skeleton without the large weights; what it leaves open is read off one run
in ONNX Runtime.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from threading import Timer
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.compared import compared_values
from hwc_onnx.graph.external import mapped_feeds, without_mapped
from hwc_onnx.graph.input_sizes import batch_names, settled
from hwc_onnx.graph.model_view import reads
from hwc_onnx.graph.structure import LARGEST_TENSOR

logger = logging.getLogger(__name__)

RUN_SECONDS = 300.0
"""One run of a model at batch 1 or 2 may take this long."""

SMALL = 1024
"""Initializers with more elements than this are declared, not copied: no shape depends on their values."""

Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Tensor name -> (static shape, element type name)."""


def dtype_name(elem_type: int) -> str:
    """Lower-case ONNX element type, such as "float" or "int64"."""
    return str(TensorProto.DataType.Name(elem_type)).lower()


def input_shapes_of(
    proto: onnx.ModelProto, wanted: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """A static shape for every model input: as declared, with `batch` for a dynamic first axis, or as `wanted`.

    Inputs that `wanted` does not name follow the batch of those that it does (`input_sizes.py`).

    Raises:
        ModelError: another axis is dynamic and nothing settles it, or `wanted` contradicts the model.
    """
    wanted = dict(wanted or {})
    inputs = fed_inputs(proto)
    for value in inputs:
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"input '{value.name}': is not a tensor; only tensor inputs are supported")
    strange = [name for name in wanted if name not in {value.name for value in inputs}]
    if strange:
        known = ", ".join(value.name for value in inputs) or "none"
        raise ModelError(f"--input-shape names '{strange[0]}', but the model's inputs are: {known}; choose one of these")
    return settled(inputs, wanted, batch)


def shapes_at_batch(
    proto: onnx.ModelProto, wanted: Mapping[str, Sequence[int]] | None, batch: int
) -> dict[str, tuple[int, ...]]:
    """As `input_shapes_of`, but the batch is `batch` whatever `wanted` says, wherever the model leaves it open."""
    shapes = input_shapes_of(proto, wanted, batch)
    inputs = fed_inputs(proto)
    names = batch_names(inputs)
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(
            batch if dim.dim_param in names or (axis == 0 and not dim.HasField("dim_value")) else size
            for axis, (dim, size) in enumerate(zip(dims, shapes[value.name], strict=True))
        ) if value.type.tensor_type.HasField("shape") else shapes[value.name]
    return shapes


def fed_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The declared inputs that are not initializers."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in constants]


def skeleton(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The model with static input shapes and without its large initializers, which become declared inputs."""
    light = onnx.ModelProto()
    light.ir_version = max(proto.ir_version, 4)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(proto.graph.node)
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name not in constants:
            elem_type = value.type.tensor_type.elem_type
            graph.input.append(helper.make_tensor_value_info(value.name, elem_type, list(shapes[value.name])))
    for tensor in proto.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.int64)) <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for sparse in proto.graph.sparse_initializer:
        kind = sparse.values.data_type
        graph.input.append(helper.make_tensor_value_info(sparse.values.name, kind, list(sparse.dims)))
    for value in proto.graph.output:
        graph.output.append(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None))
    graph.value_info.extend(_declared_by_hand(proto, shapes))
    return light


def _declared_by_hand(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> list[onnx.ValueInfoProto]:
    """Declared shapes of what operators make that ONNX has no shape rule for; symbols take the inputs' sizes."""
    unknown = {name for node in proto.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    if not unknown:
        return []
    symbols = {
        dim.dim_param: int(size)
        for value in proto.graph.input
        if value.name in shapes
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=False)
        if dim.dim_param
    }
    found = []
    for value in proto.graph.value_info:
        dims = value.type.tensor_type.shape.dim
        sizes = [dim.dim_value if dim.dim_value > 0 else symbols.get(dim.dim_param) for dim in dims]
        if value.name in unknown and value.type.tensor_type.HasField("shape"):
            found.append(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, sizes))
    return found


def infer_shapes(
    proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> Shapes:
    """Shape and element type of every tensor that can be settled, for one input shape.

    Raises:
        ModelError: an input shape is open or contradicts the model, or the nodes' shapes contradict each other.
    """
    settled = input_shapes_of(proto, input_shapes, batch)
    found = declared_shapes(proto, settled)
    missing = [name for node in proto.graph.node for name in node.output if name and name not in found]
    if missing:
        found.update(_measured(proto, settled, missing))
    return found


def declared_shapes(proto: onnx.ModelProto, settled: Mapping[str, Sequence[int]], strict: bool = False) -> Shapes:
    """What ONNX shape inference alone finds for these input shapes; `strict` refuses what it cannot reconcile.

    Raises:
        ModelError: the nodes' shapes contradict each other, or a tensor would be absurdly large.
    """
    light = skeleton(proto, settled)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, check_type=False, strict_mode=strict, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the model's shapes contradict each other: {' '.join(str(error).split())}; check it with onnx.checker"
        ) from error
    found: Shapes = {}
    for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[value.name] = (tuple(dim.dim_value for dim in kind.shape.dim), dtype_name(kind.elem_type))
    for name, (shape, kind) in found.items():
        if math.prod(shape) * 4 > LARGEST_TENSOR:
            raise ModelError(
                f"tensor '{name}' of shape {'x'.join(map(str, shape))} ({kind}) would take "
                f"{math.prod(shape) * 4 / 2**30:,.0f} GiB; at most {LARGEST_TENSOR >> 30} GiB are accepted. Give smaller "
                "sizes with --input-shape, or export the model again"
            )
    for tensor in proto.graph.initializer:
        found[tensor.name] = (tuple(tensor.dims), dtype_name(tensor.data_type))
    for sparse in proto.graph.sparse_initializer:
        found[sparse.values.name] = (tuple(sparse.dims), dtype_name(sparse.values.data_type))
    return found


def zero_feeds(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
    """Zeros of every input's type, or what the model tests an input for (`compared.py`)."""
    tested = compared_values(proto)
    feeds = {}
    for value in proto.graph.input:
        if value.name in shapes:
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds[value.name] = np.full(tuple(shapes[value.name]), tested.get(value.name, np.zeros((), dtype)), dtype)
    return feeds


class NotRunnable(Exception):
    """ONNX Runtime refuses a model or fails on it; the message is its reason, on one line."""


def run_for(
    proto: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, NDArray[Any]] | None:
    """As `run_model`, with None when the model does not open or run."""
    try:
        return run_model(proto, feeds, names)
    except NotRunnable as error:
        logger.debug("not run: %s", error)
        return None


def run_model(
    proto: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The values of some tensors in one run of ONNX Runtime without optimization; only what they need is computed.

    Raises:
        NotRunnable: the model does not open, fails, or takes longer than RUN_SECONDS.
    """
    import onnxruntime

    cut = _needed_part(without_mapped(proto), names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    limit = onnxruntime.RunOptions()
    # a Loop may be endless; the flag is looked at between two nodes
    timer = Timer(RUN_SECONDS, setattr, (limit, "terminate", True))
    timer.daemon = True
    try:
        session = onnxruntime.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
        declared = {value.name for value in cut.graph.input}
        fed = {name: array for name, array in {**feeds, **mapped_feeds(proto)}.items() if name in declared}
        timer.start()
        values = session.run(list(names), fed, limit)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes; every one means "cannot be run"
        late = f"took longer than {RUN_SECONDS:g} s (an endless Loop?); " if limit.terminate else ""
        raise NotRunnable(late + _reason(error)) from error
    finally:
        timer.cancel()
    return dict(zip(names, values, strict=True))


def _reason(error: Exception) -> str:
    """ONNX Runtime's message without its bracketed status prefix, on one line."""
    text = " ".join(str(error).split())
    return (text.rpartition("[ONNXRuntimeError] : ")[2] or type(error).__name__)[:400]


def _needed_part(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The nodes, constants and inputs that `names` depend on, with `names` as outputs."""
    needed = set(names)
    nodes = []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            needed.update(reads(node))
            nodes.append(node)
    cut = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    graph = cut.graph
    graph.name = proto.graph.name or "graph"
    graph.node.extend(reversed(nodes))
    graph.input.extend(value for value in proto.graph.input if value.name in needed)
    graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in needed)
    graph.sparse_initializer.extend(t for t in proto.graph.sparse_initializer if t.values.name in needed)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return cut


def _measured(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], missing: Sequence[str]) -> Shapes:
    values = run_for(proto, zero_feeds(proto, shapes), missing)
    if values is None:
        logger.debug("shapes of %d tensors stay unknown", len(missing))
        return {}
    return {
        name: (tuple(value.shape), dtype_name(helper.np_dtype_to_tensor_dtype(value.dtype)))
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    }
