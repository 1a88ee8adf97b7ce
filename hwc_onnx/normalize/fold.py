"""Constant folding with a dynamic batch: whatever does not depend on the data is computed once.

Exporters leave arithmetic on shapes in the graph (Shape, Gather, Concat, Cast ...). Its results depend on constants and
on the input shape only, so they are evaluated by ONNX Runtime for two different batch sizes. A result that is the same
for both becomes an initializer. A Reshape target that differs in the batch entry alone is rewritten with ONNX's own
placeholders (0: as in the input, -1: whatever remains), and an Expand target that differs only where the operand already
has its size with a 1 there; an Expand that then changes nothing goes. Anything else stays computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.graph.domains import behind_foreign, is_foreign
from hwc_onnx.graph.infer import Shapes, infer_shapes, input_shapes_of, run_for, shapes_at_batch, zero_feeds
from hwc_onnx.graph.model_view import ModelView, attributes, reads, subgraphs
from hwc_onnx.graph.op_kinds import GATES, LAYER_OPS
from hwc_onnx.normalize.editing import (
    all_names,
    drop_unused,
    fresh_name,
    keep_nodes,
    put_initializer,
    remove_attributes,
)

BATCHES = (2, 3)
MAX_GROWTH_BYTES = 1 << 20
"""A folded result larger than this must not be larger than what it was computed from, unless a layer is made of it."""

_NEVER = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike",
        "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout",
    }
)  # fmt: skip

Values = dict[str, NDArray[Any]]


def fold_constants(proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None = None) -> None:
    """Fold in place; the model must have no Constant nodes left."""
    view = ModelView(proto)
    static = static_tensors(view)
    beyond = behind_foreign(proto)
    frontier = [name for name in _frontier(view, static) if name not in beyond]
    if not frontier:
        return
    runs = _evaluate(proto, input_shapes, frontier)
    if not runs:
        return
    folded = {name: runs[0][0][name] for name in frontier if _agree([values[name] for values, _ in runs])}
    folded = {name: value for name, value in folded.items() if name not in view.outputs and _small(view, name, value)}
    for name, value in folded.items():
        put_initializer(proto.graph, name, value)
    keep_nodes(proto.graph, lambda node: not all(name in folded for name in node.output if name))
    _blank_outputs(proto.graph, folded)
    _settle_reshapes(proto, runs)
    _settle_expands(proto, runs)
    drop_unused(proto.graph)


def static_tensors(view: ModelView) -> set[str]:
    """Tensors that depend on constants and on the input shape, not on the input's values."""
    static = set(view.initializers)
    for node in view.graph.node:
        if node.op_type in _NEVER or any(subgraphs(node)) or is_foreign(node):
            continue
        inputs = reads(node)
        if node.op_type in ("Shape", "Size") or (inputs and all(name in static for name in inputs)):
            static.update(name for name in node.output if name)
    return static


def _frontier(view: ModelView, static: set[str]) -> list[str]:
    """Computed static tensors that a node outside the static part reads."""
    found = []
    for node in view.graph.node:
        for name in node.output:
            if name in static and name not in view.initializers:
                readers = view.consumers.get(name, [])
                if any(not all(output in static for output in reader.output if output) for reader in readers):
                    found.append(name)
    return found


def _evaluate(
    proto: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None, names: Sequence[str]
) -> list[tuple[Values, Shapes]]:
    """The static tensors and all shapes for each batch size; one run only when the batch is fixed."""
    first, second = (shapes_at_batch(proto, input_shapes, batch) for batch in BATCHES)
    runs: list[tuple[Values, Shapes]] = []
    for shapes in [first] if first == second else [first, second]:
        values = run_for(proto, zero_feeds(proto, shapes), names)
        if values is not None:
            runs.append((values, infer_shapes(proto, shapes)))
    if len(runs) == (1 if first == second else 2):
        return runs
    # the model runs for its own batch only (an exporter may fix the batch in a Reshape), so that one is constant
    shapes = input_shapes_of(proto, input_shapes)
    values = run_for(proto, zero_feeds(proto, shapes), names)
    return [] if values is None else [(values, infer_shapes(proto, shapes))]


def _agree(values: Sequence[Any]) -> bool:
    first = values[0]
    return isinstance(first, np.ndarray) and all(
        first.dtype == other.dtype and np.array_equal(first, other, equal_nan=first.dtype.kind == "f")
        for other in values[1:]
    )


def _small(view: ModelView, name: str, value: NDArray[Any]) -> bool:
    """Whether a folded result may be stored: small, no larger than its sources, or a layer's parameter whatever its size."""
    for reader in view.consumers.get(name, []):
        if reader.op_type in (*LAYER_OPS, *GATES) and name in list(reader.input)[1:]:
            return True
    sources = sum(view.array(source).nbytes for source in reads(view.producer[name]) if source in view.initializers)
    return value.nbytes <= max(MAX_GROWTH_BYTES, sources)


def _blank_outputs(graph: onnx.GraphProto, folded: Mapping[str, Any]) -> None:
    """A node with one folded and one computed output must not make the folded one a second time."""
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in folded:
                node.output[place] = ""


def _settle_reshapes(proto: onnx.ModelProto, runs: Sequence[tuple[Values, Shapes]]) -> None:
    taken = all_names(proto.graph)
    for node in proto.graph.node:
        if node.op_type != "Reshape" or attributes(node).get("allowzero", 0):
            continue
        target = node.input[1]
        if any(target not in values or node.input[0] not in shapes for values, shapes in runs) or len(runs) < 2:
            continue
        pattern = placeholder_target(
            [[int(item) for item in values[target]] for values, _ in runs],
            [shapes[node.input[0]][0] for _, shapes in runs],
        )
        if pattern is not None:
            name = fresh_name(taken, f"{target}_static")
            put_initializer(proto.graph, name, np.asarray(pattern, np.int64))
            node.input[1] = name
            remove_attributes(node, ["allowzero"])


def placeholder_target(targets: Sequence[Sequence[int]], inputs: Sequence[Sequence[int]]) -> list[int] | None:
    """One Reshape target that means `targets[i]` for an input of shape `inputs[i]`, or None when there is none.

    >>> placeholder_target([[2, 96, -1], [3, 96, -1]], [[2, 96, 7, 7], [3, 96, 7, 7]])
    [0, 96, -1]
    """
    pattern: list[int] = []
    for axis, sizes in enumerate(zip(*targets, strict=True)):
        if len(set(sizes)) == 1:
            pattern.append(sizes[0])
        elif all(axis < len(shape) and shape[axis] == size for shape, size in zip(inputs, sizes, strict=True)):
            pattern.append(0)
        else:
            pattern.append(-1)
    return pattern if pattern.count(-1) <= 1 else None


def _settle_expands(proto: onnx.ModelProto, runs: Sequence[tuple[Values, Shapes]]) -> None:
    taken = all_names(proto.graph)
    for node in proto.graph.node:
        if node.op_type != "Expand":
            continue
        target = node.input[1]
        if any(target not in values or node.input[0] not in shapes for values, shapes in runs):
            continue
        operands = [shapes[node.input[0]][0] for _, shapes in runs]
        pattern = expand_target([[int(item) for item in values[target]] for values, _ in runs], operands)
        if pattern is None:
            continue
        if set(pattern) <= {1} and len(pattern) == len(operands[0]):
            node.op_type = "Identity"
            del node.input[1]
        else:
            node.input[1] = fresh_name(taken, f"{target}_static")
            put_initializer(proto.graph, node.input[1], np.asarray(pattern, np.int64))


def expand_target(targets: Sequence[Sequence[int]], operands: Sequence[Sequence[int]]) -> list[int] | None:
    """One Expand target that means `targets[i]` for an operand of shape `operands[i]`, or None when there is none.

    >>> expand_target([[2, 1, 9], [3, 1, 9]], [[2, 4, 1], [3, 4, 1]])
    [1, 1, 9]
    """
    rank = max(len(shape) for shape in (*targets, *operands))
    pattern: list[int] = []
    for sizes, present in zip(
        zip(*([1] * (rank - len(target)) + list(target) for target in targets), strict=True),
        zip(*([1] * (rank - len(shape)) + list(shape) for shape in operands), strict=True),
        strict=True,
    ):
        if all(size in (1, has) for size, has in zip(sizes, present, strict=True)):
            pattern.append(1)
        elif len(set(sizes)) == 1:
            pattern.append(sizes[0])
        else:
            return None
    return pattern
