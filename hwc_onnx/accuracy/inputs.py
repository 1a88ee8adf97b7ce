"""What a caller feeds a model with, and where samples lie in it.

Samples are stacked along the first axis of every input. Where first axes are of different sizes (a state [layers, batch,
size] beside an input [batch, size]), or an input is a single number, each sample is one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


@dataclass(frozen=True)
class InputSpec:
    """One model input. `shape` has None for a dynamic size; its first entry is taken as the batch.

    A `whole` input has no axis of samples: a single number, or a state [layers, batch, size] beside an input [batch, size].
    Each sample is then one run: `shape` is the declared one behind an axis of size 1 that is dropped before the run.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    whole: bool = False

    def fed(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What the model is given for these samples."""
        return np.asarray(rows[0]) if self.whole else rows


def input_specs(proto: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs that a caller must feed: declared inputs that are not initializers."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    specs = []
    for value in proto.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
        specs.append(InputSpec(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return sampled(specs)


def sampled(specs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs as they are where their first axes agree; else one sample a run, with whole inputs where they do not."""
    firsts = {spec.shape[0] for spec in specs if spec.shape}
    fixed = firsts - {None}
    if all(spec.shape for spec in specs) and len(fixed) < 2 and (None not in firsts or fixed <= {1}):
        return tuple(specs)
    return tuple(
        replace(spec, shape=(1, *spec.shape[1:]))
        if spec.shape and spec.shape[0] in (None, 1)
        else replace(spec, shape=(1, *spec.shape), whole=True)
        for spec in specs
    )
