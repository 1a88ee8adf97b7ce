"""Open axes that the canonical form no longer leaves open.

Arithmetic on shapes is folded for the sizes that the model is compressed for (fold.py), so a file may run at these sizes only although its declaration says
otherwise. Each open axis but the batch is tried at another size: where the original runs and the canonical form does not, or gives outputs of other shapes, the
axis is declared as what it is, fixed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx

from hwc_onnx.errors import ModelError
from hwc_onnx.graph.infer import fed_inputs, input_shapes_of, run_for, zero_feeds
from hwc_onnx.graph.input_sizes import batch_names

Shapes = dict[str, tuple[int, ...]]
Axis = tuple[str, int]
"""Input and axis."""

logger = logging.getLogger(__name__)


def declare_fixed(before: onnx.ModelProto, model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]] | None) -> None:
    """Give open axes of `model` that do not vary any more their size, in place; `before` is what it was made from."""
    axes = open_axes(model)
    if not axes:
        return
    try:
        usual = input_shapes_of(before, input_shapes)
    except ModelError:
        return
    fixed = [name for name, places in axes.items() if not _varies(before, model, _at_another(usual, places))]
    if not fixed:
        return
    names = [value.name for value in model.graph.output]
    outputs = run_for(model, zero_feeds(model, usual), names) or {}
    shapes = usual | {name: values.shape for name, values in outputs.items()}
    for value in (*fed_inputs(model), *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if _named(dim, value.name, axis) in fixed and axis < len(shapes.get(value.name, ())):
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
            if axis and not dim.HasField("dim_value") and dim.dim_param not in batch:
                found.setdefault(_named(dim, value.name, axis), []).append((value.name, axis))
    return found


def _named(dim: onnx.TensorShapeProto.Dimension, value: str, axis: int) -> str:
    return dim.dim_param or f"{value}, axis {axis}"


def _at_another(usual: Shapes, places: Sequence[Axis]) -> Shapes:
    """The usual shapes with these axes twice as long."""
    found = {name: list(shape) for name, shape in usual.items()}
    for name, axis in places:
        found[name][axis] *= 2
    return {name: tuple(shape) for name, shape in found.items()}


def _varies(before: onnx.ModelProto, model: onnx.ModelProto, shapes: Shapes) -> bool:
    """Whether `model` gives outputs of the original's shapes at these; what the original refuses says nothing."""
    names = [value.name for value in before.graph.output]
    expected = run_for(before, zero_feeds(before, shapes), names)
    if expected is None:
        return True
    found = run_for(model, zero_feeds(model, shapes), names)
    return found is not None and all(found[name].shape == values.shape for name, values in expected.items())
