"""Values that a model tests its inputs for: the sampling rate, say, that decides which branch of an If runs.

Made-up inputs that hit none of them run only what is left when every test fails, often a branch for other sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

PASSING = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice"})
"""Operators that hand on the values of their first operand."""


def compared_values(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """For each input of one whole number that an Equal compares with a constant: the constant, of the input's type.

    Of several the first in the graph counts. (Longer inputs are compared too: token numbers with that of padding.)
    """
    scalars = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        value = next((entry for entry in node.attribute if entry.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            scalars[node.output[0]] = value.t
    kinds = {
        value.name: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        for value in proto.graph.input
        if value.name not in scalars
        and value.type.tensor_type.HasField("shape")
        and all(dim.dim_value == 1 for dim in value.type.tensor_type.shape.dim)
    }
    origin = {name: name for name, kind in kinds.items() if kind.kind in "iu"}
    found: dict[str, NDArray[Any]] = {}
    for node in proto.graph.node:
        if node.op_type in PASSING and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        if node.op_type != "Equal":
            continue
        names = [origin[name] for name in node.input if name in origin]
        constants = [scalars[name] for name in node.input if name in scalars]
        if len(names) == len(constants) == 1 and int(np.prod(constants[0].dims, dtype=np.int64)) == 1:
            value = numpy_helper.to_array(constants[0]).reshape(())
            found.setdefault(names[0], value.astype(kinds[names[0]]))
    return found
