"""A network and samples small enough for a whole run in seconds: `python tests/cli/tiny_case.py FOLDER` writes both."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = 4
SIDE = 8


def tiny_model(rng: np.random.Generator) -> onnx.ModelProto:
    """Two convolutions, global pooling and a Gemm; input `x` [batch, 1, 8, 8], output `logits` [batch, 4]."""

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:]))
        return numpy_helper.from_array((rng.standard_normal(shape) * (2.0 / fan_in) ** 0.5).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
    ]
    zeros = [
        numpy_helper.from_array(np.zeros(n, np.float32), name) for name, n in (("b1", 8), ("b2", 8), ("b3", CLASSES))
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [weight("w1", 8, 1, 3, 3), weight("w2", 8, 8, 3, 3), weight("w3", CLASSES, 8 * (SIDE // 2) ** 2), *zeros],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [samples, 4] in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], np.float32)


def tiny_case(rng: np.random.Generator, count: int = 1200) -> tuple[onnx.ModelProto, dict[str, NDArray[np.generic]]]:
    """The network and blurred noise that it labels itself: its accuracy is 100%, and each class is common."""
    model = tiny_model(rng)
    noise = rng.standard_normal((count, 1, SIDE + 2, SIDE + 2)).astype(np.float32)
    blurred = [noise[:, :, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)]
    x = np.sum(blurred, axis=0, dtype=np.float32) / 3.0
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(-run(model, x).mean(axis=0), "b3"))
    return model, {"x": x, "y": run(model, x).argmax(axis=1).astype(np.int64)}


def write_tiny_case(folder: Path) -> tuple[Path, Path]:
    """Write tiny.onnx and tiny.npz."""
    model, samples = tiny_case(np.random.default_rng(0))
    onnx.save(model, folder / "tiny.onnx")
    np.savez(folder / "tiny.npz", **samples)
    return folder / "tiny.onnx", folder / "tiny.npz"


if __name__ == "__main__":
    write_tiny_case(Path(sys.argv[1]))
