"""Small ONNX models with one trait each. All have input `x` (dynamic batch), output `y`, opset 17 unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes and random weights; `node` returns the name of the result."""

    def __init__(self, shape: Sequence[int | str], seed: int = 0, opset: int = 17) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))

    def const(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        fan_in = max(int(np.prod(shape[1:])), 1)
        return self.const(self.rng.normal(0, (1.5 / fan_in) ** 0.5, shape))

    def vector(self, size: int) -> str:
        return self.const(self.rng.normal(0, 0.3, size))

    def node(self, op: str, *inputs: str, out: str | None = None, outs: int = 1, **attributes: Any) -> Any:
        names = [out or f"t{len(self.nodes)}"] if outs == 1 else [f"t{len(self.nodes)}_{i}" for i in range(outs)]
        label = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), names, name=label, **attributes))
        return names[0] if outs == 1 else names

    def conv(
        self,
        x: str,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int] = 3,
        out: str | None = None,
        group: int = 1,
        **facts: Any,
    ) -> str:
        fy, fx = (kernel, kernel) if isinstance(kernel, int) else kernel
        facts.setdefault("pads", [fy // 2, fx // 2, fy // 2, fx // 2])
        weight = self.weight(c_out, c_in // group, fy, fx)
        return self.node("Conv", x, weight, self.vector(c_out), out=out, group=group, **facts)

    def linear(self, x: str, c_in: int, c_out: int, out: str | None = None) -> str:
        product = self.node("MatMul", x, self.const(self.rng.normal(0, (1.5 / c_in) ** 0.5, (c_in, c_out))))
        return self.node("Add", product, self.vector(c_out), out=out)

    def gemm(self, x: str, c_in: int, c_out: int, out: str | None = None) -> str:
        return self.node("Gemm", x, self.weight(c_out, c_in), self.vector(c_out), out=out, transB=1)

    def gelu(self, x: str) -> str:
        erf = self.node("Erf", self.node("Div", x, self.const(2**0.5)))
        gate = self.node("Mul", x, self.node("Add", erf, self.const(1.0)))
        return self.node("Mul", gate, self.const(0.5))

    def finish(self, y: str, shape: Sequence[int | str | None] | None = None) -> onnx.ModelProto:
        for node in self.nodes:
            for place, name in enumerate(node.output):
                if name == y:
                    node.output[place] = "y"
            for place, name in enumerate(node.input):
                if name == y:
                    node.input[place] = "y"
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "tiny", [self.input], [output], self.constants)
        versions = {"": self.opset} | {node.domain: 1 for node in self.nodes if node.domain}
        imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        model.metadata_props.add(key="author", value="somebody else")
        return onnx.shape_inference.infer_shapes(model)


def head(b: Builder, x: str, channels: int, classes: int = 5) -> onnx.ModelProto:
    """Global average pool, Flatten and a Gemm to the logits."""
    flat = b.node("Flatten", b.node("GlobalAveragePool", x), axis=1)
    return b.finish(b.gemm(flat, channels, classes), ["batch", classes])


def chain(seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, Conv, Clip, head."""
    b = Builder(["batch", 3, 8, 8], seed)
    first = b.node("Relu", b.conv("x", 3, 8))
    second = b.node("Clip", b.conv(first, 8, 12, strides=[2, 2]), b.const(0.0), b.const(6.0))
    return head(b, second, 12)


def residual(seed: int = 0) -> onnx.ModelProto:
    """Two residual blocks, the second with a strided 1x1 shortcut."""
    b = Builder(["batch", 3, 8, 8], seed)
    trunk = b.node("Relu", b.conv("x", 3, 8))
    inner = b.node("Relu", b.conv(trunk, 8, 6))
    trunk = b.node("Relu", b.node("Add", b.conv(inner, 6, 8), trunk))
    inner = b.node("Relu", b.conv(trunk, 8, 10, strides=[2, 2]))
    deep = b.conv(inner, 10, 12)
    skip = b.conv(trunk, 8, 12, 1, strides=[2, 2])
    return head(b, b.node("Relu", b.node("Add", deep, skip)), 12)


def depthwise(seed: int = 0) -> onnx.ModelProto:
    """Expand, depthwise 3x3, project, with a skip; then a depthwise layer with two outputs per channel."""
    b = Builder(["batch", 3, 8, 8], seed)
    trunk = b.node("Clip", b.conv("x", 3, 8), b.const(0.0), b.const(6.0))
    wide = b.node("Clip", b.conv(trunk, 8, 16, 1), b.const(0.0), b.const(6.0))
    deep = b.node("Clip", b.conv(wide, 16, 16, group=16), b.const(0.0), b.const(6.0))
    trunk = b.node("Add", b.conv(deep, 16, 8, 1), trunk)
    twice = b.node("Relu", b.conv(trunk, 8, 16, group=8))
    return head(b, twice, 16)


def concat(seed: int = 0) -> onnx.ModelProto:
    """Two branches of different width side by side, read by one Conv."""
    b = Builder(["batch", 3, 8, 8], seed)
    left = b.node("Relu", b.conv("x", 3, 6))
    right = b.node("Sigmoid", b.conv("x", 3, 4, 1))
    both = b.node("Concat", left, right, axis=1)
    return head(b, b.node("Relu", b.conv(both, 10, 8)), 8)


def flatten_gemm(seed: int = 0) -> onnx.ModelProto:
    """Conv, MaxPool, Flatten of several positions, Gemm, Relu, Gemm."""
    b = Builder(["batch", 3, 8, 8], seed)
    pooled = b.node("MaxPool", b.node("Relu", b.conv("x", 3, 6)), kernel_shape=[2, 2], strides=[2, 2])
    hidden = b.node("Relu", b.gemm(b.node("Flatten", pooled, axis=1), 6 * 16, 10))
    return b.finish(b.gemm(hidden, 10, 5), ["batch", 5])


def pooling(seed: int = 0) -> onnx.ModelProto:
    """Average pooling, maximum pooling and a nearest Resize between layers."""
    b = Builder(["batch", 3, 8, 8], seed)
    first = b.node("AveragePool", b.node("Relu", b.conv("x", 3, 6)), kernel_shape=[2, 2], strides=[2, 2])
    second = b.node("MaxPool", b.node("Relu", b.conv(first, 6, 8)), kernel_shape=[2, 2], strides=[2, 2])
    large = b.node("Resize", second, "", b.const([1, 1, 2, 2]), mode="nearest")
    return head(b, b.conv(large, 8, 4), 4)


def mlp_block(seed: int = 0) -> onnx.ModelProto:
    """LayerNorm, MatMul, GELU written out, MatMul, residual: the hidden channels can go."""
    b = Builder(["batch", 5, 8], seed)
    normed = b.node("LayerNormalization", "x", b.const(np.ones(8)), b.vector(8), axis=-1)
    hidden = b.gelu(b.linear(normed, 8, 16))
    return b.finish(b.node("Add", "x", b.linear(hidden, 16, 8)), ["batch", 5, 8])


def attention(seed: int = 0) -> onnx.ModelProto:
    """Two heads of self-attention over 5 positions of 8 channels; two products of activations."""
    b = Builder(["batch", 5, 8], seed)
    shape = b.const([0, 5, 2, 4], np.int64)
    heads = [b.node("Reshape", b.linear("x", 8, 8), shape) for _ in range(3)]
    q, v = (b.node("Transpose", heads[i], perm=[0, 2, 1, 3]) for i in (0, 2))
    k = b.node("Transpose", heads[1], perm=[0, 2, 3, 1])
    scores = b.node("Softmax", b.node("Mul", b.node("MatMul", q, k), b.const(0.5)), axis=-1)
    mixed = b.node("Transpose", b.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    joined = b.node("Reshape", mixed, b.const([0, 5, 8], np.int64))
    return b.finish(b.linear(joined, 8, 8), ["batch", 5, 8])


def conv_transpose(seed: int = 0) -> onnx.ModelProto:
    """Conv, ConvTranspose with stride (2, 1), Conv."""
    b = Builder(["batch", 3, 6, 5], seed)
    small = b.node("Relu", b.conv("x", 3, 6))
    large = b.node("ConvTranspose", small, b.weight(6, 4, 2, 3), b.vector(4), strides=[2, 1], pads=[0, 1, 0, 1])
    return head(b, b.conv(b.node("Relu", large), 4, 5), 5)


def non_square(seed: int = 0) -> onnx.ModelProto:
    """Kernel 1x3, stride (2, 1), dilation (1, 2) on a 9x7 input."""
    b = Builder(["batch", 3, 9, 7], seed)
    first = b.node("Relu", b.conv("x", 3, 6, (1, 3), strides=[2, 1]))
    return head(b, b.node("Relu", b.conv(first, 6, 4, (3, 1), dilations=[1, 2], pads=[0, 0, 0, 0])), 4)


def grouped(seed: int = 0) -> onnx.ModelProto:
    """A convolution in two groups between two ordinary ones."""
    b = Builder(["batch", 3, 8, 8], seed)
    first = b.node("Relu", b.conv("x", 3, 8))
    second = b.node("Relu", b.conv(first, 8, 12, group=2))
    return head(b, b.node("Relu", b.conv(second, 12, 8)), 8)


def squeeze_excite(seed: int = 0) -> onnx.ModelProto:
    """A channel gate: pooled, two 1x1 layers, Sigmoid, Mul; SiLU and hard-swish written out."""
    b = Builder(["batch", 3, 8, 8], seed)
    first = b.conv("x", 3, 8)
    wide = b.node("Mul", first, b.node("Sigmoid", first))
    small = b.node("Relu", b.conv(b.node("GlobalAveragePool", wide), 8, 4, 1))
    gate = b.node("Sigmoid", b.conv(small, 4, 8, 1))
    second = b.conv(b.node("Mul", wide, gate), 8, 6)
    six = b.node("Clip", b.node("Add", second, b.const(3.0)), b.const(0.0), b.const(6.0))
    return head(b, b.node("Mul", second, b.node("Div", six, b.const(6.0))), 6)


def batch_norm(seed: int = 0) -> onnx.ModelProto:
    """Conv without bias and BatchNormalization, then one BatchNormalization that no layer can take in."""
    b = Builder(["batch", 3, 8, 8], seed)

    def norm(x: str, channels: int) -> str:
        scale, var = (b.const(b.rng.uniform(0.5, 2, channels)) for _ in range(2))
        return b.node("BatchNormalization", x, scale, b.vector(channels), b.vector(channels), var, epsilon=1e-3)

    first = norm(b.node("Conv", "x", b.weight(8, 3, 3, 3), pads=[1, 1, 1, 1]), 8)
    second = b.conv(b.node("Relu", norm(b.node("Concat", first, b.node("Relu", first), axis=1), 16)), 16, 6)
    return head(b, second, 6)


ALL: dict[str, Callable[[], onnx.ModelProto]] = {
    builder.__name__: builder
    for builder in (
        chain,
        residual,
        depthwise,
        concat,
        flatten_gemm,
        pooling,
        mlp_block,
        attention,
        conv_transpose,
        non_square,
        grouped,
        squeeze_excite,
        batch_norm,
    )
}


def feeds(model: onnx.ModelProto, batch: int = 3, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Standard normal values for input `x`."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    shape = [dim.dim_value if dim.HasField("dim_value") else batch for dim in dims]
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def run(
    model: onnx.ModelProto, values: dict[str, NDArray[np.float32]], outputs: Sequence[str] = ("y",)
) -> list[NDArray[Any]]:
    """Outputs of one run of ONNX Runtime without graph optimization."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), values)
