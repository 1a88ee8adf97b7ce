"""The loop nest that LoopDims describes is run, step by step, and must compute what ONNX Runtime computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hwc_onnx.graph.layer_graph import Layer, LayerGraph
from hwc_onnx.graph.loop_dims import LoopDims
from hwc_onnx.graph.parse import parse
from hwc_onnx.normalize.pipeline import normalize
from tests import tiny_models
from tests.tiny_models import Builder

Array = NDArray[np.float64]


def run_nest(dims: LoopDims, x: Array, weight: Array, shape: tuple[int, ...]) -> tuple[Array, int]:
    """y [B, G*K, rows, columns] of `shape` and the multiply-accumulates counted one by one."""
    y = np.zeros(shape)
    macs = 0
    (sy, sx), (dy, dx), (top, left, _, _) = dims.stride, dims.dilation, dims.pads
    for b, g, k, c, oy, ox, fy, fx in np.ndindex(dims.B, dims.G, dims.K, dims.C, dims.OY, dims.OX, dims.FY, dims.FX):
        macs += 1
        far_y, far_x = oy * sy + fy * dy - top, ox * sx + fx * dx - left
        if dims.transposed:
            if 0 <= far_y < shape[2] and 0 <= far_x < shape[3]:
                y[b, g * dims.K + k, far_y, far_x] += x[b, g * dims.C + c, oy, ox] * weight[g * dims.C + c, k, fy, fx]
        elif 0 <= far_y < dims.input_size[0] and 0 <= far_x < dims.input_size[1]:
            y[b, g * dims.K + k, oy, ox] += x[b, g * dims.C + c, far_y, far_x] * weight[g * dims.K + k, c, fy, fx]
    return y, macs


def convolution(
    op: str, weight: tuple[int, ...], size: tuple[int, int], channels: int, **facts: object
) -> tuple[onnx.ModelProto, LayerGraph]:
    b = Builder(["batch", channels, *size])
    model = b.finish(b.node(op, "x", b.weight(*weight), **facts))
    return model, parse(normalize(model))


CASES = {
    "plain": ("Conv", (4, 3, 3, 3), (5, 6), 3, {"pads": [1, 1, 1, 1]}),
    "kernel 1x3, stride (2, 1)": ("Conv", (4, 3, 1, 3), (7, 5), 3, {"strides": [2, 1], "pads": [0, 1, 0, 1]}),
    "uneven pads": ("Conv", (2, 3, 3, 2), (5, 6), 3, {"pads": [2, 0, 1, 1], "strides": [1, 2]}),
    "dilated": ("Conv", (2, 3, 3, 2), (7, 8), 3, {"dilations": [1, 3]}),
    "same upper": ("Conv", (2, 3, 3, 2), (5, 6), 3, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ("Conv", (2, 3, 2, 2), (5, 6), 3, {"auto_pad": "SAME_LOWER", "strides": [1, 1]}),
    "valid": ("Conv", (2, 3, 3, 2), (5, 6), 3, {"auto_pad": "VALID"}),
    "two groups": ("Conv", (6, 2, 3, 3), (4, 5), 4, {"group": 2}),
    "depthwise, two per channel": ("Conv", (8, 1, 3, 1), (4, 5), 4, {"group": 4}),
    "transposed": ("ConvTranspose", (3, 4, 2, 3), (3, 4), 3, {"strides": [2, 1], "pads": [0, 1, 0, 1]}),
    "transposed, two groups": ("ConvTranspose", (4, 3, 2, 2), (3, 4), 4, {"group": 2, "strides": [2, 2]}),
    "transposed, dilated, output padding": (
        "ConvTranspose", (3, 2, 2, 3), (3, 4), 3, {"strides": [2, 3], "dilations": [2, 1], "output_padding": [1, 0]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_convolution_nest_computes_what_runtime_computes(name: str) -> None:
    op, weight, size, channels, facts = CASES[name]
    model, graph = convolution(op, weight, size, channels, **facts)
    layer = graph.layers[0]
    values = tiny_models.feeds(model, batch=1)
    expected = tiny_models.run(model, values)[0]
    stored = {t.name: t for t in model.graph.initializer}[layer.weight]

    y, macs = run_nest(
        layer.loop_dims, values["x"].astype(float), onnx.numpy_helper.to_array(stored).astype(float), expected.shape
    )
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert layer.macs == macs
    swapped = replace(layer.loop_dims, stride=layer.loop_dims.stride[::-1], dilation=layer.loop_dims.dilation[::-1])
    if swapped != layer.loop_dims:  # broken twin: the axes the wrong way round must be noticed
        try:
            wrong, _ = run_nest(
                swapped, values["x"].astype(float), onnx.numpy_helper.to_array(stored).astype(float), expected.shape
            )
        except IndexError:
            return
        assert not np.allclose(wrong, expected, rtol=1e-4, atol=1e-5)


def layer_of(graph: LayerGraph, op_type: str) -> Layer:
    return next(layer for layer in graph.layers if layer.op_type == op_type)


def test_convolution_one_and_three_axes_macs_are_exact() -> None:
    line = Builder(["batch", 3, 10])
    one = parse(line.finish(line.node("Conv", "x", line.weight(4, 3, 3)))).layers[0]
    assert (one.loop_dims.OY, one.loop_dims.FY, one.loop_dims.OX) == (8, 3, 1)
    assert one.macs == 4 * 3 * 3 * 8
    block = Builder(["batch", 2, 4, 5, 6])
    three = parse(block.finish(block.node("Conv", "x", block.weight(3, 2, 2, 3, 1)))).layers[0]
    assert three.macs == 3 * 2 * (2 * 3 * 1) * (3 * 3 * 6)
    assert (three.loop_dims.OY, three.loop_dims.OX) == (3, 6)


def test_gemm_both_transpositions_dims() -> None:
    for flip in (0, 1):
        b = Builder(["batch", 6])
        model = b.finish(b.node("Gemm", "x", b.weight(*((4, 6) if flip else (6, 4))), transB=flip))
        layer = layer_of(parse(model), "Gemm")
        assert (layer.loop_dims.K, layer.loop_dims.C, layer.loop_dims.OY, layer.macs) == (4, 6, 1, 24)
        assert (layer.output_axis, layer.input_axis) == ((0, 1) if flip else (1, 0))


def test_matmul_weight_on_either_side_and_two_activations_dims() -> None:
    right = Builder(["batch", 5, 6])
    layer = layer_of(parse(right.finish(right.node("MatMul", "x", right.weight(6, 4)))), "MatMul")
    assert (layer.loop_dims.K, layer.loop_dims.C, layer.loop_dims.OY, layer.loop_dims.B) == (4, 6, 5, 1)
    left = Builder(["batch", 5, 6])
    layer = layer_of(parse(left.finish(left.node("MatMul", left.weight(3, 5), "x"))), "MatMul")
    assert (layer.loop_dims.K, layer.loop_dims.C, layer.loop_dims.OY) == (3, 5, 6)
    assert (layer.output_axis, layer.input_axis) == (0, 1)
    graph = parse(normalize(tiny_models.attention()))
    scores, mixed = (layer for layer in graph.layers if layer.weight is None)
    assert (scores.loop_dims.G, scores.loop_dims.K, scores.loop_dims.C, scores.loop_dims.OY) == (2, 5, 4, 5)
    assert (mixed.loop_dims.G, mixed.loop_dims.K, mixed.loop_dims.C, mixed.loop_dims.OY) == (2, 4, 5, 5)
    assert scores.inputs == ("t9", "t11")


def test_parse_larger_batch_scales_macs() -> None:
    proto = normalize(tiny_models.depthwise())
    one, four = parse(proto), parse(proto, {"x": (4, 3, 8, 8)})
    assert [layer.macs * 4 for layer in one.layers] == [layer.macs for layer in four.layers]
