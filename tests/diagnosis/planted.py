"""Tiny networks with one planted fault each, and their twins without it."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray

from hwc_onnx.diagnosis.why import Why, why
from tests.tiny_models import Builder, head

COUNT = 640
FACTOR = 64.0


def inputs(spikes: bool = False) -> NDArray[np.float32]:
    """Smooth noise [COUNT, 3, 8, 8]; with `spikes` one value in 5,000 is two hundred times as large."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((COUNT, 3, 8, 8)).astype(np.float32)
    if spikes:
        x = np.where(rng.random(x.shape) < 1 / 5000, np.float32(200.0) * np.sign(x), x).astype(np.float32)
    return x


def two_convolutions(weight_factor: float = 1.0, channel_factor: float = 1.0) -> onnx.ModelProto:
    """Conv, Relu, Conv, Relu, head: what comes out of the first Relu in channel 3 is made weaker or stronger, and the weights
    that read it make up for it, so that the network computes the same.
    """
    b = Builder(["batch", 3, 8, 8], 1)
    factor = channel_factor / weight_factor
    first, bias = b.rng.normal(0, 0.24, (8, 3, 3, 3)), b.rng.normal(0, 0.3, 8)
    second = b.rng.normal(0, 0.14, (12, 8, 3, 3))
    first[3] *= factor
    bias[3] *= factor
    second[:, 3] /= factor
    hidden = b.node("Relu", b.node("Conv", "x", b.const(first), b.const(bias), out="first", pads=[1, 1, 1, 1]))
    last = b.node("Conv", hidden, b.const(second), b.vector(12), out="second", pads=[1, 1, 1, 1])
    return head(b, b.node("Relu", last), 12)


def separable(depthwise: bool) -> onnx.ModelProto:
    """Conv, a depthwise or an ordinary convolution `middle`, Conv, head."""
    b = Builder(["batch", 3, 8, 8], 2)
    wide = b.node("Relu", b.conv("x", 3, 12))
    middle = b.node("Relu", b.conv(wide, 12, 12, out="middle", group=12 if depthwise else 1))
    return head(b, b.node("Relu", b.conv(middle, 12, 10, 1)), 10)


def large_bias(bias: float) -> onnx.ModelProto:
    """Conv `first` whose channel 0 has weights of a millionth and a bias of `bias`."""
    b = Builder(["batch", 3, 8, 8], 3)
    weight, vector = b.rng.normal(0, 0.24, (8, 3, 3, 3)), b.rng.normal(0, 0.3, 8)
    weight[0] *= 1e-6
    vector[0] = bias
    hidden = b.node("Relu", b.node("Conv", "x", b.const(weight), b.const(vector), out="first", pads=[1, 1, 1, 1]))
    return head(b, b.node("Relu", b.conv(hidden, 8, 10)), 10)


def looked_at(model: onnx.ModelProto, spec: str, x: NDArray[np.float32] | None = None, **options: object) -> Why:
    """`why` on few samples."""
    return why(model, spec=spec, repairs=(), data={"x": inputs() if x is None else x}, samples=128, **options)


def named(found: Why, key: str) -> tuple[str | None, set[str]]:
    """The cause of a layer, and all that was found of it."""
    suspect = next(suspect for suspect in found.suspects if suspect.key == key)
    cause = None if suspect.cause is None else suspect.cause.name
    return cause, {remark.name for remark in suspect.remarks} | ({cause} if cause else set())


@cache
def clean(spec: str) -> Why:
    """The network without a fault."""
    return looked_at(two_convolutions(), spec)
