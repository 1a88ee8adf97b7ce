"""Calibration samples in the forms in which the tools want them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader

Arrays = dict[str, NDArray[np.generic]]


def batches(arrays: Arrays, size: int) -> Iterator[Arrays]:
    """The samples, `size` at a time."""
    for start in range(0, count(arrays), size):
        yield {name: values[start : start + size] for name, values in arrays.items()}


def count(arrays: Arrays) -> int:
    """How many samples there are."""
    return len(next(iter(arrays.values())))


class Reader(CalibrationDataReader):
    """ONNX Runtime's interface, which Quark takes too."""

    def __init__(self, arrays: Arrays, size: int = 1) -> None:
        self.arrays, self.size = arrays, size
        self.rewind()

    def get_next(self) -> Arrays | None:
        """The next batch, None at the end."""
        return next(self.iterator, None)

    def rewind(self) -> None:
        """Start again."""
        self.iterator = batches(self.arrays, self.size)

    def __len__(self) -> int:
        return math.ceil(count(self.arrays) / self.size)


def prepared(model: Path, folder: Path) -> Path:
    """The model after ONNX Runtime's `quant_pre_process`: shapes inferred, constants folded, BatchNorm fused.

    A symbolic shape inference that fails is left out, as the tool's own error message proposes.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = folder / "prepared.onnx"
    try:
        quant_pre_process(str(model), str(target))
    except Exception as error:
        print(f"without symbolic shape inference: {error}")
        quant_pre_process(str(model), str(target), skip_symbolic_shape=True)
    return target


def has_attention(model: Path) -> bool:
    """Whether the network is a transformer, going by its Softmax nodes."""
    return any(node.op_type == "Softmax" for node in onnx.load(model, load_external_data=False).graph.node)
