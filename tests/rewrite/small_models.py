"""Small float models, one per graph form that quantization must survive, with what is stored in each.

Each ends in a quantized tensor that a Flatten passes to the output, so that outputs lie on a known grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


@dataclass(frozen=True)
class Case:
    """A model, groups of stored tensors that share a quantizer, and tensors that are Softmax results."""

    name: str
    model: onnx.ModelProto
    groups: tuple[tuple[str, ...], ...]
    probabilities: tuple[str, ...]
    feeds: dict[str, NDArray[np.float32]]


_TEXTS = {
    "chain": (
        "float[n,3,6,6] x",
        """
        c1 = Conv <pads=[1,1,1,1]> (x, w1:8x3x3x3, b1:8)
        r1 = Relu (c1)
        z = Conv <strides=[2,1]> (r1, w2:5x8x1x3, b2:5)
        """,
        ("x r1 z"),
    ),
    "residual": (
        "float[n,3,6,6] x",
        """
        c1 = Conv <pads=[1,1,1,1]> (x, w1:6x3x3x3, b1:6)
        r1 = Relu (c1)
        c2 = Conv <pads=[1,1,1,1]> (r1, w2:6x6x3x3, b2:6)
        a2 = Add (c2, r1)
        r2 = Relu (a2)
        z = Conv (r2, w3:4x6x1x1, b3:4)
        """,
        ("x r1 r2 z"),
    ),
    "depthwise": (
        "float[n,3,6,6] x",
        """
        c1 = Conv (x, w1:8x3x1x1, b1:8)
        r1 = Clip (c1, zero, six)
        c2 = Conv <pads=[1,1,1,1], group=8> (r1, w2:8x1x3x3, b2:8)
        r2 = Clip (c2, zero, six)
        z = Conv (r2, w3:4x8x1x1, b3:4)
        """,
        ("x r1 r2 z"),
    ),
    "concat": (
        "float[n,3,6,6] x",
        """
        c1 = Conv (x, w1:4x3x1x1, b1:4)
        r1 = Relu (c1)
        c2 = Conv <pads=[1,1,1,1]> (x, w2:5x3x3x3, b2:5)
        r2 = Relu (c2)
        j = Concat <axis=1> (r1, r2)
        z = Conv (j, w3:4x9x1x1, b3:4)
        """,
        ("x r1+r2+j z"),
    ),
    "pooling": (
        "float[n,3,6,6] x",
        """
        c1 = Conv <pads=[1,1,1,1]> (x, w1:6x3x3x3, b1:6)
        r1 = Relu (c1)
        p1 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r1)
        c2 = Conv (p1, w2:7x6x1x1, b2:7)
        r2 = Relu (c2)
        p2 = GlobalAveragePool (r2)
        f = Flatten (p2)
        z = Gemm <transB=1> (f, w3:4x7, b3:4)
        """,
        ("x r1+p1 r2 p2+f z"),
    ),
    "gemm": (
        "float[n,12] x",
        """
        c1 = Gemm <transB=1> (x, w1:9x12, b1:9)
        r1 = Relu (c1)
        z = Gemm (r1, w2:9x5, b2:5)
        """,
        ("x r1 z"),
    ),
    "matmul": (
        "float[n,5,12] x",
        """
        m1 = MatMul (x, w1:12x9)
        c1 = Add (m1, b1:9)
        r1 = Relu (c1)
        m2 = MatMul (r1, w2:9x6)
        z = Add (m2, b2:6)
        """,
        ("x r1 z"),
    ),
    "attention": (
        "float[n,5,8] x",
        """
        q = MatMul (x, w1:8x8)
        k = MatMul (x, w2:8x8)
        v = MatMul (x, w3:8x8)
        kt = Transpose <perm=[0,2,1]> (k)
        s = MatMul (q, kt)
        p = Softmax <axis=-1> (s)
        z = MatMul (p, v)
        """,
        ("x q k+kt v p z"),
    ),
    "transposed": (
        "float[n,3,5,5] x",
        """
        c1 = ConvTranspose <strides=[2,2], kernel_shape=[3,3]> (x, w1:3x6x3x3, b1:6)
        r1 = Relu (c1)
        z = Conv (r1, w2:4x6x1x1, b2:4)
        """,
        ("x r1 z"),
    ),
    "hard_swish": (
        "float[n,3,6,6] x",
        """
        c1 = Conv <pads=[1,1,1,1]> (x, w1:6x3x3x3, b1:6)
        h1 = HardSwish (c1)
        z = Conv (h1, w2:4x6x1x1, b2:4)
        """,
        ("x h1 z"),
    ),
    "left_weight": (
        "float[n,12,5] x",
        """
        m1 = MatMul (w1:9x12, x)
        r1 = Relu (m1)
        z = MatMul (w2:6x9, r1)
        """,
        ("x r1 z"),
    ),
}

NAMES = tuple(_TEXTS)


def case(name: str, seed: int = 0, opset: int = 21, batch: int = 4) -> Case:
    """The model of this name with weights and inputs drawn from `seed`."""
    rng = np.random.default_rng([seed, NAMES.index(name)])
    header, body, stored = _TEXTS[name]
    lines, initializers = [], {}
    for line in body.strip().splitlines():
        words = line.replace("(", "( ").replace(")", " )").replace(",", " , ").split()
        for index, word in enumerate(words):
            if ":" in word and word[0] in "wb":
                tensor, _, sizes = word.partition(":")
                shape = tuple(int(size) for size in sizes.split("x"))
                values = rng.standard_normal(shape) * rng.uniform(0.5, 1.5, shape[:1] + (1,) * (len(shape) - 1))
                initializers[tensor] = (values * (0.3 if len(shape) > 1 else 0.5)).astype(np.float32)
                words[index] = tensor
        lines.append(" ".join(words))
    if "six" in body:
        initializers.update(zero=np.float32(0.0), six=np.float32(6.0))
    rank = len(initializers)
    text = f'<ir_version: 10, opset_import: ["": {opset}]> {name} ({header}) => (float y) {{ {" ".join(lines)} y = Flatten (z) }}'
    model = onnx.parser.parse_model(text)
    assert rank == len(initializers)
    for tensor, values in initializers.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), tensor))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", "m"]))
    shape = [batch, *(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
    groups = tuple(tuple(group.split("+")) for group in stored.split())
    return Case(name, model, groups, ("p",) if name == "attention" else (), feeds)
