"""One-layer models of every kind whose inputs can be gathered, with the layer's facts."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests.tiny_models import Builder


def conv(group: int = 1, kernel: tuple[int, int] = (3, 3), **facts: object) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        b = Builder(["batch", 4, 8, 7])
        return b.finish(b.conv("x", 4, 8, kernel, group=group, **facts))

    return make


def line(op: str, weight: tuple[int, ...], **facts: object) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        b = Builder(["batch", 4, 9])
        return b.finish(b.node(op, "x", b.weight(*weight), b.vector(6), **facts))

    return make


def transposed(group: int = 1, **facts: object) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        b = Builder(["batch", 4, 5, 4])
        weight = b.weight(4, 6 // group, 3, 2)
        return b.finish(b.node("ConvTranspose", "x", weight, b.vector(6), group=group, **facts))

    return make


def product(
    op: str, shape: tuple[int, ...], weight: tuple[int, int], left: bool = False, **facts: object
) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        b = Builder(["batch", *shape])
        operands = (b.weight(*weight), "x") if left else ("x", b.weight(*weight))
        bias = (b.vector(6),) if op == "Gemm" else ()
        return b.finish(b.node(op, *operands, *bias, **facts))

    return make


KINDS: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv": conv(),
    "conv strided, dilated, uneven pads": conv(strides=[2, 1], dilations=[1, 2], pads=[0, 1, 2, 1]),
    "conv 1x3": conv(kernel=(1, 3), strides=[1, 2]),
    "conv grouped": conv(group=2, strides=[2, 2]),
    "conv depthwise": conv(group=4),
    "conv one axis": line("Conv", (6, 4, 3), strides=[2], dilations=[2], pads=[1, 2]),
    "transposed one axis": line("ConvTranspose", (4, 6, 3), strides=[2], pads=[1, 0], output_padding=[1]),
    "transposed": transposed(strides=[2, 1], pads=[1, 0, 0, 1]),
    "transposed grouped": transposed(group=2, strides=[2, 2], output_padding=[1, 0]),
    "transposed dilated": transposed(dilations=[2, 1], strides=[1, 3]),
    "gemm transB=1": product("Gemm", (8,), (6, 8), transB=1),
    "gemm transB=0": product("Gemm", (8,), (8, 6), transB=0),
    "matmul": product("MatMul", (5, 8), (8, 6)),
    "matmul from the left": product("MatMul", (8, 5), (6, 8), left=True),
}


def one_layer(kind: str) -> tuple[onnx.ModelProto, LayerGraph, Layer]:
    proto = normalize(KINDS[kind]())
    graph = parse(proto)
    (layer,) = graph.layers
    return proto, graph, layer
