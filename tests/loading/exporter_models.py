"""Small models written the way exporters write them: one habit each. Every builder returns a model that ONNX Runtime runs.

The input is `x`, the output `y`, unless the habit is about inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.tiny_models import Builder, head

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
IMAGE = ["batch", 3, 8, 8]


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """A declared tensor."""
    return helper.make_tensor_value_info(name, kind, shape)


def array(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    """An initializer."""
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def weights(seed: int, *shape: int) -> np.ndarray:
    """Weights that keep the variance of what they are applied to."""
    return np.random.default_rng(seed).normal(0, (1.5 / max(int(np.prod(shape[1:])), 1)) ** 0.5, shape).astype(np.float32)


def batch_arithmetic() -> onnx.ModelProto:
    """Shape, Gather, Unsqueeze, Concat in front of a Reshape, as PyTorch writes `view(x.size(0), -1)`."""
    b = Builder(IMAGE, opset=11)
    pooled = b.node("AveragePool", b.node("Relu", b.conv("x", 3, 6)), kernel_shape=[4, 4], strides=[4, 4])
    size = b.node("Gather", b.node("Shape", pooled), b.const(0, np.int64), axis=0)
    target = b.node("Concat", b.node("Unsqueeze", size, axes=[0]), b.const([-1], np.int64), axis=0)
    return b.finish(b.gemm(b.node("Reshape", pooled, target), 24, 5), ["batch", 5])


def dynamic_pad() -> onnx.ModelProto:
    """TensorFlow's and PyTorch's Pad whose amounts come from constants by ConstantOfShape, Concat, Reshape, Slice, Cast."""
    b = Builder(IMAGE, opset=13)
    zeros = b.node("ConstantOfShape", b.const([4], np.int64), value=helper.make_tensor("v", INT64, [1], [0]))
    listed = b.node("Concat", b.const([1, 1, 2, 2], np.int64), zeros, axis=0)
    pairs = b.node("Reshape", listed, b.const([-1, 2], np.int64))
    back = b.node(
        "Slice", pairs, b.const([-1], np.int64), b.const([-(2**62)], np.int64), b.const([0], np.int64),
        b.const([-1], np.int64),
    )  # fmt: skip
    pads = b.node("Cast", b.node("Reshape", b.node("Transpose", back, perm=[1, 0]), b.const([-1], np.int64)), to=INT64)
    padded = b.node("Pad", "x", pads, b.const(0.0))
    return head(b, b.node("Relu", b.conv(padded, 3, 6, pads=[0, 0, 0, 0])), 6)


def constant_nodes() -> onnx.ModelProto:
    """Weights as Constant nodes; bounds and sizes as value_float and value_ints."""
    b = Builder(IMAGE, opset=13)
    weight = b.node("Constant", value=array("w", weights(1, 6, 3, 3, 3)))
    first = b.node("Conv", "x", weight, pads=[1, 1, 1, 1])
    low, high = b.node("Constant", value_float=0.0), b.node("Constant", value_float=6.0)
    clipped = b.node("Clip", first, low, high)
    shift = b.node("Constant", value_floats=[0.1, 0.2, -0.1, 0.0, 0.3, 0.4])
    axes = b.node("Constant", value_ints=[0, 2, 3])
    moved = b.node("Add", clipped, b.node("Unsqueeze", shift, axes))
    flat = b.node("Reshape", b.node("GlobalAveragePool", moved), b.node("Constant", value_ints=[-1, 6]))
    return b.finish(b.gemm(flat, 6, 5), ["batch", 5])


def identity_chain() -> onnx.ModelProto:
    """Identity behind Identity, one of them on a shared weight, one at the output."""
    b = Builder(IMAGE)
    weight = b.weight(6, 6, 3, 3)
    alias = b.node("Identity", b.node("Identity", weight))
    t = b.node("Relu", b.conv("x", 3, 6))
    t = b.node("Relu", b.node("Conv", t, weight, pads=[1, 1, 1, 1]))
    t = b.node("Identity", b.node("Identity", b.node("Conv", t, alias, pads=[1, 1, 1, 1])))
    flat = b.node("Flatten", b.node("GlobalAveragePool", b.node("Relu", t)), axis=1)
    return b.finish(b.node("Identity", b.gemm(flat, 6, 5)), ["batch", 5])


def cast_chain() -> onnx.ModelProto:
    """float -> double -> float -> float between layers."""
    b = Builder(IMAGE)
    t = b.node("Cast", b.node("Relu", b.conv("x", 3, 6)), to=TensorProto.DOUBLE)
    t = b.node("Cast", b.node("Cast", t, to=FLOAT), to=FLOAT)
    return head(b, b.node("Relu", b.conv(t, 6, 6)), 6)


def unfused_norms() -> onnx.ModelProto:
    """Norm before a convolution, between ReLU and a convolution with padding, behind an Add, and behind a Gemm."""
    b = Builder(IMAGE)

    def norm(x: str, channels: int) -> str:
        scale, var = (b.const(b.rng.uniform(0.5, 2, channels)) for _ in range(2))
        return b.node("BatchNormalization", x, scale, b.vector(channels), b.vector(channels), var, epsilon=1e-3)

    t = b.node("Relu", b.conv(norm("x", 3), 3, 8))
    u = b.conv(norm(t, 8), 8, 8)
    t = b.node("Relu", norm(b.node("Add", u, t), 8))
    flat = b.node("Flatten", b.node("GlobalAveragePool", t), axis=1)
    return b.finish(norm(b.gemm(flat, 8, 5), 5), ["batch", 5])


def old_batch_norm() -> onnx.ModelProto:
    """Opset 8: BatchNormalization with `spatial`, unused statistics as outputs, Dropout with its mask."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n", "a1", "a2", "a3", "a4"], spatial=1),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Dropout", ["r"], ["d", "mask"], ratio=0.5),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["y"], transB=1),
    ]
    nodes[1].output[:] = ["n"]
    constants = [
        array("w", weights(0, 6, 3, 3, 3)), array("s", np.linspace(0.5, 2, 6)), array("b", np.linspace(-1, 1, 6)),
        array("m", np.linspace(-0.2, 0.2, 6)), array("v", np.linspace(0.5, 2, 6)), array("fw", weights(1, 5, 6)),
        array("fb", np.zeros(5)),
    ]  # fmt: skip
    declared = [value("x", IMAGE), *(value(t.name, list(t.dims)) for t in constants)]
    graph = helper.make_graph(nodes, "old", declared, [value("y", ["batch", 5])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3)


def opset(version: int) -> onnx.ModelProto:
    """The operators whose form changed between opsets, in the form of `version`; IR 3 declares its weights as inputs."""
    b = Builder(IMAGE, opset=version)
    t = b.node("Relu", b.conv("x", 3, 6))
    clip = ("Clip", t, b.const(0.0), b.const(6.0)) if version >= 11 else ("Clip", t)
    t = b.node(*clip, **({} if version >= 11 else {"min": 0.0, "max": 6.0}))
    if version >= 11:
        t = b.node("Pad", t, b.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64), b.const(0.0), mode="constant")
    else:
        t = b.node("Pad", t, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=0.0)
    t = b.conv(t, 6, 8, pads=[0, 0, 0, 0])
    if version >= 10:
        args = (b.const([0, 1], np.int64), b.const([8, 7], np.int64), b.const([2, 3], np.int64))
        t = b.node("Slice", t, *args)
    else:
        t = b.node("Slice", t, axes=[2, 3], starts=[0, 1], ends=[8, 7])
    if version >= 13:
        first, second = b.node("Split", t, b.const([3, 5], np.int64), outs=2, axis=1)
    else:
        first, second = b.node("Split", t, outs=2, axis=1, split=[3, 5])
    t = b.node("Concat", second, first, axis=1)
    if version >= 11:
        t = b.node("Resize", t, b.const([], np.float32), b.const([1, 1, 2, 2]), mode="nearest")
    elif version == 10:
        t = b.node("Resize", t, b.const([1, 1, 2, 2]), mode="nearest")
    elif version == 9:
        t = b.node("Upsample", t, b.const([1, 1, 2, 2]), mode="nearest")
    else:
        t = b.node("Upsample", t, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")
    if version >= 18:
        t = b.node("ReduceMean", t, b.const([2, 3], np.int64), keepdims=1)
    else:
        t = b.node("ReduceMean", t, axes=[2, 3], keepdims=1)
    if version >= 13:
        t = b.node("Squeeze", t, b.const([2, 3], np.int64))
    else:
        t = b.node("Squeeze", t, axes=[2, 3])
    t = b.node("Dropout", t) if version >= 12 else b.node("Dropout", t, ratio=0.5)
    t = b.node("Softmax", b.gemm(t, 8, 5), axis=1)
    model = b.finish(t, ["batch", 5])
    model.ir_version = 3 if version <= 8 else 8 if version < 21 else 10
    if version <= 8:
        model.graph.input.extend(value(c.name, list(c.dims), c.data_type) for c in model.graph.initializer)
    return model


def hard_swish_and_gelu() -> onnx.ModelProto:
    """Hard-swish by Add, Clip, Mul, Mul; GELU by Div, Erf, Add, Mul, Mul and by tanh."""
    b = Builder(IMAGE)
    t = b.conv("x", 3, 6)
    six = b.node("Clip", b.node("Add", t, b.const(3.0)), b.const(0.0), b.const(6.0))
    t = b.node("Mul", b.node("Mul", t, six), b.const(1 / 6))
    t = b.gelu(b.conv(t, 6, 6))
    t = b.conv(t, 6, 6)
    cubed = b.node("Mul", b.node("Pow", t, b.const(3.0)), b.const(0.044715))
    inner = b.node("Tanh", b.node("Mul", b.node("Add", t, cubed), b.const(0.7978845608)))
    t = b.node("Mul", b.node("Mul", t, b.node("Add", inner, b.const(1.0))), b.const(0.5))
    return head(b, b.node("Relu", b.conv(t, 6, 6)), 6)


def training_leftovers() -> onnx.ModelProto:
    """Dropout with training_mode=False and a mask nobody reads; an unread branch; a declared but unread input."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    kept, _mask = b.node("Dropout", t, b.const(0.5), b.const(False, bool), outs=2)
    b.node("ReduceMean", t, axes=[0, 2, 3])
    return head(b, b.node("Relu", b.conv(kept, 6, 6)), 6)


def two_inputs_two_outputs() -> onnx.ModelProto:
    """An image and a vector in, logits and features out."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    pooled = b.node("Flatten", b.node("GlobalAveragePool", t), axis=1)
    both = b.node("Concat", pooled, b.gemm("z", 4, 3), axis=1)
    hidden = b.node("Relu", b.gemm(both, 9, 7), out="features")
    model = b.finish(b.gemm(hidden, 7, 5), ["batch", 5])
    model.graph.input.append(value("z", ["batch", 4]))
    model.graph.output.append(value("features", ["batch", 7]))
    return model


def token_ids() -> onnx.ModelProto:
    """Integer tokens and an attention mask of fixed length, an embedding table, a masked mean and two linear layers."""
    b = Builder(["batch", 6])
    table = b.const(b.rng.normal(0, 1, (30, 8)))
    t = b.linear(b.node("Gather", table, "x"), 8, 12)
    mask = b.node("Unsqueeze", b.node("Cast", "attention_mask", to=FLOAT), b.const([2], np.int64))
    t = b.node("ReduceMean", b.node("Mul", b.node("Relu", t), mask), axes=[1], keepdims=0)
    model = b.finish(b.gemm(t, 12, 5), ["batch", 5])
    for declared in (value("x", ["batch", 6], INT64), value("attention_mask", ["batch", 6], INT64)):
        model.graph.input.append(declared)
    del model.graph.input[0]
    return model


def dynamic_sequence() -> onnx.ModelProto:
    """[batch, sequence, 8] into self-attention whose Reshape targets are computed from the shape."""
    b = Builder(["batch", "sequence", 8])
    shape = b.node("Shape", "x")
    length = b.node("Slice", shape, b.const([0], np.int64), b.const([2], np.int64), b.const([0], np.int64))
    target = b.node("Concat", length, b.const([2, 4], np.int64), axis=0)
    heads = [b.node("Reshape", b.linear("x", 8, 8), target) for _ in range(3)]
    q, v = (b.node("Transpose", heads[i], perm=[0, 2, 1, 3]) for i in (0, 2))
    k = b.node("Transpose", heads[1], perm=[0, 2, 3, 1])
    scores = b.node("Softmax", b.node("MatMul", q, k), axis=-1)
    mixed = b.node("Transpose", b.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    joined = b.node("Reshape", mixed, b.node("Concat", length, b.const([8], np.int64), axis=0))
    return b.finish(b.linear(joined, 8, 8), ["batch", "sequence", 8])


def dynamic_image(fixed_by_gemm: bool = False) -> onnx.ModelProto:
    """[batch, 3, height, width], all convolutional, or with a Flatten in front of a Gemm that only one size fits."""
    b = Builder(["batch", 3, "height", "width"])
    t = b.node("Relu", b.conv("x", 3, 6, strides=[2, 2]))
    if not fixed_by_gemm:
        return head(b, b.node("Relu", b.conv(t, 6, 6)), 6)
    flat = b.node("Flatten", t, axis=1)
    return b.finish(b.gemm(flat, 6 * 5 * 5, 5), ["batch", 5])


def half(kind: int) -> onnx.ModelProto:
    """All weights and activations in float16 or double; declared inputs and outputs too."""
    model = onnx.ModelProto.FromString(opset(13).SerializeToString())
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in model.graph.initializer:
        if tensor.data_type == FLOAT and list(tensor.dims) != [4]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for declared in (*model.graph.input, *model.graph.output):
        declared.type.tensor_type.elem_type = kind
    del model.graph.value_info[:]
    return model


def bfloat16_weights() -> onnx.ModelProto:
    """bfloat16 weights behind a Cast to float, which is how ONNX Runtime's CPU can run them."""
    b = Builder(IMAGE)
    b.constants.append(helper.make_tensor("w16", TensorProto.BFLOAT16, [6, 3, 3, 3], weights(3, 6, 3, 3, 3).ravel()))
    t = b.node("Conv", "x", b.node("Cast", "w16", to=FLOAT), pads=[1, 1, 1, 1])
    return head(b, b.node("Relu", t), 6)


def local_function() -> onnx.ModelProto:
    """A convolution block as a model-local function, with an attribute of its own, called twice."""
    body = [
        helper.make_node("Conv", ["a", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["c"], ["r"]),
    ]
    body[1].attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    function = helper.make_function(
        "acme.blocks", "Block", ["a", "w"], ["r"], body, [helper.make_opsetid("", 17)], ["slope"]
    )
    b = Builder(IMAGE)
    t = b.node("Block", "x", b.weight(6, 3, 3, 3), domain="acme.blocks", slope=0.1)
    t = b.node("Block", t, b.weight(6, 6, 3, 3), domain="acme.blocks", slope=0.2)
    model = head(b, t, 6)
    model.functions.append(function)
    return model


def if_on_data() -> onnx.ModelProto:
    """An If whose condition depends on the data, between two layers; a branch has a layer of its own and captures one."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    weight = b.weight(6, 6, 1, 1)
    total = b.node("ReduceMean", t, axes=[0, 1, 2, 3], keepdims=0)
    condition = b.node("Greater", total, b.const(0.3))
    branches = [
        helper.make_graph([helper.make_node("Conv", [t, weight], ["inner"])], "yes", [], [value("inner", None)]),
        helper.make_graph([helper.make_node("Neg", [t], ["other"])], "no", [], [value("other", None)]),
    ]
    chosen = b.node("If", condition, then_branch=branches[0], else_branch=branches[1])
    return head(b, b.node("Relu", b.conv(chosen, 6, 6)), 6)


def loop() -> onnx.ModelProto:
    """A Loop of three steps that doubles and adds, its body reading a tensor from outside."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["state", t], ["next"])],
        "body",
        [value("step", [], INT64), value("go", [], TensorProto.BOOL), value("state", None)],
        [value("on", [], TensorProto.BOOL), value("next", None)],
    )
    t = b.node("Loop", b.const(3, np.int64), b.const(True, bool), t, body=body)
    return head(b, b.node("Relu", b.conv(t, 6, 6)), 6)


def scan() -> onnx.ModelProto:
    """A running sum over the rows of a matrix by Scan, between two linear layers."""
    b = Builder([4, 8])
    t = b.linear("x", 8, 6)
    body = helper.make_graph(
        [helper.make_node("Add", ["sum", "row"], ["total"]), helper.make_node("Identity", ["total"], ["out"])],
        "body", [value("sum", [6]), value("row", [6])], [value("total", [6]), value("out", [6])],
    )  # fmt: skip
    _last, rows = b.node("Scan", b.const(np.zeros(6)), t, outs=2, num_scan_inputs=1, body=body)
    return b.finish(b.linear(b.node("Relu", rows), 6, 5), [4, 5])


def sequence_outside_layers() -> onnx.ModelProto:
    """SplitToSequence and ConcatFromSequence between two convolutions."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    parts = b.node("SplitToSequence", t, b.const(3, np.int64), axis=1)
    return head(b, b.node("Relu", b.conv(b.node("ConcatFromSequence", parts, axis=1), 6, 6)), 6)


def sparse_weight() -> onnx.ModelProto:
    """A fully connected weight as a sparse initializer."""
    b = Builder([2, 12])
    dense = weights(4, 12, 8)
    dense[np.abs(dense) < 0.3] = 0
    places = np.flatnonzero(dense)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [places.size], dense.ravel()[places]),
        helper.make_tensor("indices", INT64, [places.size], places.astype(np.int64)),
        [12, 8],
    )
    t = b.node("Relu", b.node("MatMul", "x", "w"))
    model = b.finish(b.gemm(t, 8, 5), [2, 5])
    model.graph.sparse_initializer.append(sparse)
    return model


def optional_inputs() -> onnx.ModelProto:
    """'' for a Clip's lower bound, a Resize's roi, a Conv's bias."""
    b = Builder(IMAGE)
    t = b.node("Conv", "x", b.weight(6, 3, 3, 3), "", pads=[1, 1, 1, 1])
    t = b.node("Clip", t, "", b.const(6.0))
    t = b.node("Resize", t, "", "", b.const([2, 6, 16, 16], np.int64), mode="nearest")
    t = b.node("GlobalAveragePool", b.node("Relu", b.conv(t, 6, 6)))
    model = b.finish(b.gemm(b.node("Flatten", t), 6, 5), [2, 5])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    return model


def custom_domain() -> onnx.ModelProto:
    """An operator of a domain that nobody but its owner implements, between two convolutions."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6))
    t = b.node("Whiten", t, domain="acme.vision", strength=0.5)
    t = b.node("Relu", b.conv(t, 6, 8))
    return head(b, b.node("Relu", b.conv(t, 8, 6)), 6)


def duplicate_node_names() -> onnx.ModelProto:
    """Every node is called 'node'; tensors carry names that we like to make up."""
    model = batch_arithmetic()
    for node in model.graph.node:
        node.name = "node"
    return model


def clashing_names() -> onnx.ModelProto:
    """Tensors named as the ones that quantization generates."""
    b = Builder(IMAGE)
    t = b.node("Relu", b.conv("x", 3, 6), out="x_QuantizeLinear")
    t = b.node("Relu", b.conv(t, 6, 6), out="c0_scale")
    t = b.node("Relu", b.conv(t, 6, 6), out="x_scale")
    t = b.node("Relu", b.conv(t, 6, 6), out="x_float32")
    return head(b, t, 6)


def qdq_model(signed: bool = False) -> onnx.ModelProto:
    """A quantized model in Q/DQ form, made by ONNX Runtime's own tool conventions (per-tensor, UINT8)."""
    b = Builder(IMAGE, opset=13)
    kind = np.int8 if signed else np.uint8
    zero = b.const(0 if signed else 128, kind)

    def qdq(x: str, scale: float) -> str:
        step = b.const(scale)
        return b.node("DequantizeLinear", b.node("QuantizeLinear", x, step, zero), step, zero)

    def stored(*shape: int) -> str:
        codes = b.const(b.rng.integers(-127, 128, shape), np.int8)
        return b.node("DequantizeLinear", codes, b.const(0.004), b.const(0, np.int8))

    t = qdq(b.node("Relu", b.node("Conv", qdq("x", 0.03), stored(6, 3, 3, 3), pads=[1, 1, 1, 1])), 0.02)
    t = qdq(b.node("Relu", b.node("Conv", t, stored(6, 6, 3, 3), pads=[1, 1, 1, 1])), 0.02)
    t = b.node("Flatten", b.node("GlobalAveragePool", t), axis=1)
    return b.finish(b.node("Gemm", qdq(t, 0.01), stored(5, 6), transB=1), ["batch", 5])


def qoperator_model() -> onnx.ModelProto:
    """The same in operator form: QuantizeLinear, QLinearConv with bias, com.microsoft QLinearAdd, QLinearMatMul."""
    b = Builder(IMAGE, opset=13)
    zero_u, zero_s = b.const(128, np.uint8), b.const(0, np.int8)
    scales = [b.const(s) for s in (0.03, 0.02, 0.05, 0.01, 0.04)]
    weight_scale = b.const(np.linspace(0.003, 0.006, 6))
    weight_zero = b.const(np.zeros(6), np.int8)

    def codes(*shape: int) -> str:
        return b.const(b.rng.integers(-127, 128, shape), np.int8)

    q = b.node("QuantizeLinear", "x", scales[0], zero_u)
    bias = b.const(b.rng.integers(-2000, 2000, 6), np.int32)
    one = b.node(
        "QLinearConv", q, scales[0], zero_u, codes(6, 3, 3, 3), weight_scale, weight_zero, scales[1], zero_u, bias,
        pads=[1, 1, 1, 1],
    )  # fmt: skip
    two = b.node(
        "QLinearConv", one, scales[1], zero_u, codes(6, 6, 3, 3), b.const(0.004), zero_s, scales[1], zero_u,
        pads=[1, 1, 1, 1],
    )  # fmt: skip
    total = b.node(
        "QLinearAdd", one, scales[1], zero_u, two, scales[1], zero_u, scales[2], zero_u, domain="com.microsoft"
    )
    pooled = b.node(
        "QLinearGlobalAveragePool", total, scales[2], zero_u, scales[3], zero_u, domain="com.microsoft"
    )
    flat = b.node("Reshape", pooled, b.const([-1, 6], np.int64))
    last = b.node("QLinearMatMul", flat, scales[3], zero_u, codes(6, 5), b.const(0.004), zero_s, scales[4], zero_u)
    return b.finish(b.node("DequantizeLinear", last, scales[4], zero_u), ["batch", 5])


def integer_operators() -> onnx.ModelProto:
    """Dynamic quantization: DynamicQuantizeLinear, ConvInteger, MatMulInteger, Cast, Mul by the scales, Add."""
    b = Builder(IMAGE, opset=13)

    def dynamic(op: str, x: str, shape: tuple[int, ...], **facts: Any) -> str:
        q, scale, zero = b.node("DynamicQuantizeLinear", x, outs=3)
        codes = b.const(b.rng.integers(-127, 128, shape), np.int8)
        summed = b.node(op, q, codes, zero, b.const(0, np.int8), **facts)
        return b.node("Mul", b.node("Cast", summed, to=FLOAT), b.node("Mul", scale, b.const(0.004)))

    t = dynamic("ConvInteger", "x", (6, 3, 3, 3), pads=[1, 1, 1, 1])
    t = b.node("Relu", b.node("Add", t, b.const(b.rng.normal(0, 0.1, (1, 6, 1, 1)))))
    t = b.node("Flatten", b.node("GlobalAveragePool", t), axis=1)
    return b.finish(b.node("Add", dynamic("MatMulInteger", t, (6, 5)), b.vector(5)), ["batch", 5])


def rounded_biases() -> onnx.ModelProto:
    """ConvInteger as ONNX Runtime's first quantizer left it: the float bias becomes steps of both scales at each run."""
    b = Builder(IMAGE, opset=13)

    def conv(x: str, rows: int, columns: int) -> str:
        q, scale, zero = b.node("DynamicQuantizeLinear", x, outs=3)
        codes, step = b.const(b.rng.integers(0, 256, (rows, columns, 3, 3)), np.uint8), b.const(0.004)
        summed = b.node("ConvInteger", q, codes, zero, b.const(128, np.uint8), pads=[1, 1, 1, 1])
        steps = b.node("Floor", b.node("Div", b.vector(rows), b.node("Mul", scale, step)))
        shift = b.node("Reshape", b.node("Cast", steps, to=TensorProto.INT32), b.const([1, -1, 1, 1], np.int64))
        return b.node("Mul", b.node("Cast", b.node("Add", summed, shift), to=FLOAT), b.node("Mul", scale, step))

    pooled = b.node("GlobalAveragePool", conv(b.node("Relu", conv("x", 6, 3)), 5, 6))
    return b.finish(b.node("Flatten", pooled, axis=1), ["batch", 5])


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    **{f"opset{version}": (lambda version=version: opset(version)) for version in (*range(7, 27),)},
    **{
        function.__name__: function
        for function in (
            batch_arithmetic, dynamic_pad, constant_nodes, identity_chain, cast_chain, unfused_norms, old_batch_norm,
            hard_swish_and_gelu, training_leftovers, two_inputs_two_outputs, token_ids, local_function, if_on_data, loop,
            scan, sequence_outside_layers, sparse_weight, optional_inputs, duplicate_node_names, clashing_names,
            bfloat16_weights,
        )
    },
    "float16": lambda: half(TensorProto.FLOAT16),
    "double": lambda: half(TensorProto.DOUBLE),
}  # fmt: skip
