"""What two files declare of their inputs and outputs, and whether one is made of the other.

A file may be for one size of an axis that the original leaves open (normalize/varying.py).
"""

from __future__ import annotations

import onnx

from hwc_onnx.level_agreement import Check

Value = tuple[str, str, tuple[str, ...]]
"""Name, type and sizes or names of the axes of a declared input or output."""


def declarations(ours: onnx.ModelProto, theirs: onnx.ModelProto, kind: str) -> Check:
    """Same names, types, shapes and dynamic axes, in the same order; a file may be for one size of an axis that the original leaves open."""
    found, expected = declared(ours, kind), declared(theirs, kind)
    good = len(found) == len(expected) and all(_fits(one, other) for one, other in zip(found, expected, strict=True))
    told, wanted = ", ".join(map(_text, found)), ", ".join(map(_text, expected))
    said = told if found == expected else f"{told}, one size of {wanted}" if good else f"{told} instead of {wanted}"
    return Check(f"{kind}s unchanged", good, said)


def _fits(one: Value, other: Value) -> bool:
    """Whether a declaration is the other, or has a size where that is open (the batch apart)."""
    name, kind, sizes = one
    return (name, kind, len(sizes)) == (other[0], other[1], len(other[2])) and all(
        ours == theirs or (axis > 0 and ours.isdigit() and not theirs.isdigit())
        for axis, (ours, theirs) in enumerate(zip(sizes, other[2], strict=True))
    )


def _text(value: Value) -> str:
    name, kind, sizes = value
    return f"{name} {kind}[{', '.join(sizes)}]"


def other_inputs(ours: onnx.ModelProto, theirs: onnx.ModelProto) -> str | None:
    """What keeps two models from being run on the same inputs: other names, types, numbers of axes or fixed sizes."""
    first, second = _facts(ours), _facts(theirs)
    fits = len(first) == len(second) and all(
        one[:2] == other[:2]
        and len(one[2]) == len(other[2])
        and all(not a or not b or a == b for a, b in zip(one[2], other[2], strict=True))
        for one, other in zip(first, second, strict=True)
    )
    return None if fits else "its inputs are not the original's, so the two cannot be compared; is it the right original?"


def _facts(proto: onnx.ModelProto) -> list[tuple[str, int, list[int]]]:
    """Name, type and sizes (0: open) of each input."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [
        (value.name, value.type.tensor_type.elem_type, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in proto.graph.input
        if value.name not in constants
    ]


def declared(proto: onnx.ModelProto, kind: str) -> list[Value]:
    """The "input"s or "output"s of a model that are not initializers."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    found = []
    for value in getattr(proto.graph, kind):
        if kind == "input" and value.name in constants:
            continue
        tensor = value.type.tensor_type
        sizes = [
            dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in tensor.shape.dim
        ]
        found.append((value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), tuple(sizes)))
    return found


def sizes_of(ours: onnx.ModelProto, theirs: onnx.ModelProto) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the inputs for which the file is made where the original leaves more than the batch open."""
    found = {}
    for (name, _, sizes), (other, _, open_ones) in zip(declared(ours, "input"), declared(theirs, "input"), strict=False):
        if name != other or len(sizes) != len(open_ones) or not all(size.isdigit() for size in sizes[1:]):
            continue
        if all(ours == theirs or not theirs.isdigit() for ours, theirs in zip(sizes, open_ones, strict=True)) and sizes[1:] != open_ones[1:]:
            found[name] = tuple(int(size) if size.isdigit() else 1 for size in sizes)
    return found or None
