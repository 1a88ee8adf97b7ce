"""Inputs of a model that become constants: a sampling rate, a flag, anything that one device never changes.

What hangs on them then folds: an If takes its branch, and the layers inside become layers that can be compressed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hwc_onnx.errors import ModelError, UsageError
from hwc_onnx.graph.op_kinds import GATES, LAYER_OPS
from hwc_onnx.plugins import nearest

LARGEST = 1 << 20
"""Elements of a constant that a single number is spread over."""
FEW = 16
"""Elements of an input that may choose between networks."""
SAME_VALUES = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten"})
"""Operators behind which the numbers of their first input are what they were."""
WITHOUT_INPUTS = 4
"""IR version from which an initializer needs no input of its name."""


@dataclass(frozen=True)
class FixedInput:
    """An input that is a constant now: its type as ONNX calls it, and its value [shape of the input].

    `compared_with` are the numbers that the model compares it with for equality.
    """

    name: str
    dtype: str
    value: NDArray[np.generic]
    compared_with: tuple[float, ...] = ()

    @property
    def odd(self) -> bool:
        """Whether the model asks for certain values, and this is none of them."""
        return bool(self.compared_with) and not np.isin(self.value, self.compared_with).any()


def fix_inputs(proto: onnx.ModelProto, values: Mapping[str, Any]) -> tuple[FixedInput, ...]:
    """Turn inputs into initializers, in place.

    Args:
        proto: the model.
        values: a number (all elements get it) or an array by input name. Whole numbers have to fit the declared type; others
            may be off by a thousandth, which half precision needs.

    Raises:
        UsageError: no values, an unknown input, a value of another type or shape, or no input would be left.
        ModelError: an input whose shape is open, or that is no tensor of numbers.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input if value.name not in constants}
    if not values:
        raise UsageError("fix: no input is given a value; write --input NAME=VALUE")
    found = []
    for name, value in values.items():
        if name not in inputs:
            raise UsageError(f"--input {name}: the model has no such input{nearest(name, list(inputs))}; choose from {', '.join(inputs)}")
        found.append(replace(_constant(inputs[name], value), compared_with=tuple(sorted(set(_compared(proto, name))))))
    if len(found) == len(inputs):
        raise UsageError(f"--input: all inputs ({', '.join(inputs)}) would become constants; leave one that a sample feeds")
    for fixed in found:
        proto.graph.input.remove(inputs[fixed.name])
        proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(fixed.value), fixed.name))
    proto.ir_version = max(proto.ir_version, WITHOUT_INPUTS)
    return tuple(found)


def deciding_inputs(proto: onnx.ModelProto) -> list[str]:
    """Small inputs of fixed size that alone decide which branch an If takes, of those whose branches hold layers; none where no
    other input would be left.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    given = [value for value in proto.graph.input if value.name not in constants]
    inputs = [value.name for value in given if _is_flag(value)]
    makers = {name: node for node in proto.graph.node for name in node.output}
    found: dict[str, None] = {}
    for node in proto.graph.node:
        if node.op_type != "If" or not any(_holds_layers(attribute.g) for attribute in node.attribute):
            continue
        sources = set(_sources(node.input[0], makers))
        if sources and sources <= set(inputs) | constants:
            found.update(dict.fromkeys(name for name in inputs if name in sources))
    return list(found) if len(found) < len(given) else []


def _compared(proto: onnx.ModelProto, name: str) -> Iterator[float]:
    """The constants that an input, or what is only another form of it, is compared with by Equal."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            constants[node.output[0]] = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    same = {name}
    for node in proto.graph.node:
        if node.op_type in SAME_VALUES and node.input[0] in same:
            same.update(node.output)
        elif node.op_type == "Equal" and same.intersection(node.input):
            for other in node.input:
                if other in constants and constants[other].dtype.kind in "fiub":
                    yield from constants[other].ravel().astype(float).tolist()


def _is_flag(declared: onnx.ValueInfoProto) -> bool:
    """Whether an input is a number or a few, of fixed size."""
    tensor = declared.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    return tensor.HasField("shape") and all(sizes) and int(np.prod(sizes, dtype=np.int64)) <= FEW


def _holds_layers(graph: onnx.GraphProto) -> bool:
    """Whether some node of a branch, or of a graph inside it, is of a kind that has weights."""
    return any(
        node.op_type in LAYER_OPS | GATES.keys() or any(_holds_layers(attribute.g) for attribute in node.attribute)
        for node in graph.node
    )


def _sources(name: str, makers: Mapping[str, onnx.NodeProto]) -> Iterator[str]:
    """Names without a maker that a value is computed from."""
    todo, seen = [name], set()
    while todo:
        here = todo.pop()
        if here in seen or not here:
            continue
        seen.add(here)
        if here not in makers:
            yield here
        elif makers[here].op_type != "Constant":
            todo += makers[here].input


def _constant(declared: onnx.ValueInfoProto, value: Any) -> FixedInput:
    name, tensor = declared.name, declared.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    if not declared.type.HasField("tensor_type") or kind in ("undefined", "string"):
        raise ModelError(f"input '{name}': is no tensor of numbers ({kind}); leave it out, only numbers can be fixed")
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in dims):
        raise ModelError(
            f"input '{name}': its shape is open, and a constant has one; leave it out, or declare its sizes in the model"
        )
    shape = tuple(dim.dim_value for dim in dims)
    try:
        given = np.asarray(value)
    except ValueError as error:
        raise UsageError(f"--input {name}: no number and no array ({error}); give one number, or the shape {list(shape)}") from error
    if given.ndim and given.shape != shape:
        raise UsageError(f"--input {name}: the value has shape {list(given.shape)}, the input {list(shape)}; give one number or that shape")
    if int(np.prod(shape, dtype=np.int64)) > LARGEST:
        raise UsageError(f"--input {name}: {list(shape)} is more than {LARGEST:,} elements; leave it out, only small inputs are fixed")
    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    with np.errstate(all="ignore"):
        try:
            made = given.astype(wanted)
        except (TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"--input {name}: '{value}' is no {kind} ({error}); give a number") from error
        real, whole = given.dtype.kind in "fiub", wanted.kind in "iub"
        exact = real and whole and bool((made == given).all())
        near = real and not whole and np.allclose(made.astype(np.float64), given.astype(np.float64), rtol=1e-3, atol=0.0)
    if not (exact or near):
        raise UsageError(f"--input {name}: {value} is no {kind}; give a value that the input's type can hold")
    return FixedInput(name, kind, np.broadcast_to(made, shape))
