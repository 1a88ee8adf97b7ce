"""Open axes that the canonical form no longer leaves open.

Arithmetic on shapes is folded for the sizes that the model is compressed for (fold.py), so a file may be right at these sizes only although its declaration says
otherwise. Each open axis but the batch is tried at twice and at half the size: where the original runs and the canonical form does not, or computes something
else, the axis is declared as what it is, fixed. Models without arithmetic on shapes are not tried.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import fed_inputs, input_shapes_of, run_for, zero_feeds
from hwc_onnx.graph.input_sizes import axis_name, batch_names
from hwc_onnx.graph.model_view import subgraphs

Shapes = dict[str, tuple[int, ...]]
Axis = tuple[str, int]
"""Input and axis."""

ARITHMETIC = frozenset({"Shape", "Size", "NonZero"})
"""Operators that make sizes into values."""
DIFFERENT = 0.01
"""Difference of outputs over their size, both root mean square, from which on they are not the same."""

logger = logging.getLogger(__name__)


def declare_fixed(before: onnx.ModelProto, model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None) -> None:
    """Give open axes of `model` that do not vary any more their size, in place; `before` is what it was made from."""
    axes = open_axes(model)
    if not axes or not _has_arithmetic(before.graph):
        return
    try:
        usual = input_shapes_of(before, input_shapes)
    except ModelError:
        return
    fixed = [name for name, places in axes.items() if not _varies(before, model, usual, places)]
    if not fixed:
        return
    names = [value.name for value in model.graph.output]
    outputs = run_for(model, zero_feeds(model, usual), names) or {}
    shapes = usual | {name: values.shape for name, values in outputs.items()}
    for value in (*fed_inputs(model), *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis and _named(dim, value.name, axis) in fixed and axis < len(shapes.get(value.name, ())):
                dim.dim_value = shapes[value.name][axis]
    logger.warning("the files made of this model are for %s: its arithmetic on shapes is settled for these sizes", ", ".join(
        f"{name} {list(usual[name])}" for name in dict.fromkeys(name for one in fixed for name, _ in axes[one])
    ))  # fmt: skip


def open_axes(model: onnx.ModelProto) -> dict[str, list[Axis]]:
    """Open axes of the inputs but the batch, those of one name together."""
    inputs = fed_inputs(model)
    batch, found = batch_names(inputs), dict[str, list[Axis]]()
    for value in inputs:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis and not dim.HasField("dim_value") and axis_name(dim) not in batch:
                found.setdefault(_named(dim, value.name, axis), []).append((value.name, axis))
    return found


def _named(dim: onnx.TensorShapeProto.Dimension, value: str, axis: int) -> str:
    return axis_name(dim) or f"{value}, axis {axis}"


def _has_arithmetic(graph: onnx.GraphProto) -> bool:
    return any(node.op_type in ARITHMETIC or any(_has_arithmetic(inner) for inner in subgraphs(node)) for node in graph.node)


def _scaled(usual: Shapes, places: Sequence[Axis], factor: float) -> Shapes:
    """The usual shapes with these axes longer or shorter."""
    found = {name: list(shape) for name, shape in usual.items()}
    for name, axis in places:
        found[name][axis] = int(found[name][axis] * factor)
    return {name: tuple(shape) for name, shape in found.items()}


def _varies(before: onnx.ModelProto, model: onnx.ModelProto, usual: Shapes, places: Sequence[Axis]) -> bool:
    """Whether `model` computes what the original does at other sizes; what the original refuses says nothing."""
    names = [value.name for value in before.graph.output]
    for factor in (2.0, 0.5):
        shapes = _scaled(usual, places, factor)
        if min(shapes[name][axis] for name, axis in places) < 1:
            continue
        feeds = _drawn(zero_feeds(before, shapes))
        expected = run_for(before, feeds, names)
        if expected is None:
            continue
        found = run_for(model, feeds, names)
        if found is None or not all(_same(values, found[name]) for name, values in expected.items()):
            return False
    return True


def _drawn(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Numbers in place of zeros, where they need not be indices."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(values.shape).astype(values.dtype) if values.dtype.kind == "f" and not values.any() else values
        for name, values in feeds.items()
    }


def _same(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    if expected.shape != found.shape:
        return False
    if expected.dtype.kind != "f":
        return True  # ties of an ArgMax may fall either way
    usable = np.isfinite(expected)
    difference = np.where(usable, found, 0.0).astype(np.float64) - np.where(usable, expected, 0.0)
    size = float(np.sqrt(np.mean(np.square(np.where(usable, expected, 0.0), dtype=np.float64)))) if expected.size else 0.0
    return not expected.size or float(np.sqrt(np.mean(np.square(difference)))) <= DIFFERENT * (size or 1.0)
