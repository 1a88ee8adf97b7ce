"""A linear classifier of small images, and data on which it is right for a known share of the labels."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, SIDE = 5, 8
RNG_SEED = 11


def weights(seed: int = RNG_SEED) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(SIDE * SIDE, CLASSES)).astype(np.float32)


def classifier(weight: np.ndarray | None = None, batch: int | str = "batch", softmax: bool = False) -> onnx.ModelProto:
    """image [batch, 1, 8, 8] -> logits [batch, 5] (or probabilities)."""
    matrix = weights() if weight is None else weight
    last = "scores" if softmax else "logits"
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], [last]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", [last], ["logits"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, matrix.shape[1]])],
        [numpy_helper.from_array(matrix.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def labelled(count: int, right: float = 0.9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of which about a share `right` is what `classifier()` answers."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, 1, SIDE, SIDE)).astype(np.float32)
    answers = (images.reshape(count, -1) @ weights()).argmax(axis=1)
    wrong = rng.random(count) > right
    return images, np.where(wrong, (answers + rng.integers(1, CLASSES, count)) % CLASSES, answers).astype(np.int64)


def perturbed(amount: float, seed: int = 5) -> onnx.ModelProto:
    """The classifier with noise on its weights."""
    noise = np.random.default_rng(seed).normal(size=(SIDE * SIDE, CLASSES)).astype(np.float32)
    return classifier(weights() + np.float32(amount) * noise)
