"""A model that mends the channels of its layers while it runs, layer after layer, and says what it did.

Behind a layer's output y' (batch of all images) are inserted, per channel, the means m_n of each image n, their mean m
and the variance v over images and positions. With the original's m_n and v (targets t_n, v0):

    d = mean_n(m_n - t_n)            k = max(0, 1 - var_n(m_n - t_n) / (N - 1) / d^2)
    a = sqrt((v0 + e) / (v + e))     y = (y' - m) a + m - k d

The layers behind read y, so each is mended for inputs that are mended already, all in one run. k is the shrinkage of James
and Stein: a shift that could be chance of these N images is left alone. e, half the mean of v0 over the channels, draws a
towards 1 where a channel hardly varies.

Source: the matching of channel statistics to the original's is that of Nagel et al. (ICCV 2019), section 4.2, for means,
and of REPAIR (Jordan et al., ICLR 2023), section 3.2, for variances; James and Stein (1961) for the shrinkage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from hwc_onnx.rewrite.opset import model_opset

LEAN = 0.5
STRONGEST = 2.0
"""Bounds of the factor a and of 1 / a."""
AXES_AS_INPUT = 18
"""Opset since which ReduceMean has its axes as an input."""


@dataclass(frozen=True)
class ChannelTarget:
    """One layer output of the original: `means` [images, channels], `variance` [channels], its rank and channel axis."""

    means: NDArray[np.float32]
    variance: NDArray[np.float32]
    rank: int
    axis: int


def with_means(proto: onnx.ModelProto, axes: Mapping[str, tuple[int, int]]) -> tuple[onnx.ModelProto, list[str]]:
    """The model with two more outputs for each tensor of `axes` (rank, channel axis): image means and variance."""
    writer = _Writer(proto)
    for name, (rank, axis) in axes.items():
        means, _, _, variance = writer.statistics(name, name, rank, axis)
        writer.outputs += [means, variance]
    return writer.model(), writer.outputs


def mending(proto: onnx.ModelProto, targets: Mapping[str, ChannelTarget]) -> tuple[onnx.ModelProto, list[str]]:
    """The model that mends the tensors of `targets`, with outputs m, k d and a of each, in order."""
    writer = _Writer(proto)
    for name, target in targets.items():
        raw = writer.part(name)
        means, mean, centred, variance = writer.statistics(raw, name, target.rank, target.axis)
        shift, factor = writer.correction(name, target, means, variance)
        scaled = writer.add("Mul", [centred, factor], name + "_scaled")
        moved = writer.add("Sub", [mean, shift], name + "_moved")
        writer.add("Add", [scaled, moved], name, exact=True)
        writer.outputs += [mean, shift, factor]
    return writer.model(), writer.outputs


class _Writer:
    """Nodes that go behind the nodes they read."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._proto = onnx.ModelProto()
        self._proto.CopyFrom(proto)
        self._opset = model_opset(proto)
        self._taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
        self._taken |= {tensor.name for tensor in proto.graph.initializer}
        self._behind: dict[str, list[NodeProto]] = {}
        self._current = ""
        self.outputs: list[str] = []

    def part(self, name: str) -> str:
        """Let the node that makes `name` make another tensor instead, whose name is returned."""
        raw = self._fresh(name + "_as_made")
        for node in self._proto.graph.node:
            for place, output in enumerate(node.output):
                if output == name:
                    node.output[place] = raw
        return raw

    def statistics(self, source: str, name: str, rank: int, axis: int) -> tuple[str, str, str, str]:
        """Image means, mean, centred values and variance of tensor `source`."""
        self._current = source
        inner = [place for place in range(1, rank) if place != axis]
        means = self.mean(source, inner, name + "_image_means") if inner else source
        mean = self.mean(means, [0], name + "_mean")
        centred = self.add("Sub", [source, mean], name + "_centred")
        square = self.add("Mul", [centred, centred], name + "_square")
        return means, mean, centred, self.mean(square, [0, *inner], name + "_variance")

    def correction(self, name: str, target: ChannelTarget, means: str, variance: str) -> tuple[str, str]:
        """The shift k d and the factor a."""
        images = len(target.means)
        shape = [1] * target.rank
        shape[target.axis] = -1
        expected = self.constant(name + "_expected", target.means.reshape([images, *shape[1:]]))
        differences = self.add("Sub", [means, expected], name + "_differences")
        shift = self.mean(differences, [0], name + "_shift")
        around = self.add("Sub", [differences, shift], name + "_around")
        spread = self.mean(self.add("Mul", [around, around], name + "_around_square"), [0], name + "_spread")
        chance = self.add("Mul", [spread, self.number(1.0 / max(images - 1, 1))], name + "_chance")
        square = self.add("Mul", [shift, shift], name + "_shift_square")
        tiny = self.number(float(target.variance.mean()) * 1e-12 + 1e-30)
        ratio = self.add("Div", [chance, self.add("Add", [square, tiny], name + "_safe")], name + "_ratio")
        certain = self.add("Relu", [self.add("Sub", [self.number(1.0), ratio], name + "_left")], name + "_certain")
        kept = self.add("Mul", [shift, certain], name + "_kept_shift")
        lean = float(target.variance.mean()) * LEAN + 1e-30
        wanted = self.constant(name + "_wanted", (target.variance + lean).astype(np.float32).reshape(shape))
        seen = self.add("Add", [variance, self.number(lean)], name + "_seen")
        root = self.add("Sqrt", [self.add("Div", [wanted, seen], name + "_quotient")], name + "_root")
        bounded = self.add("Max", [root, self.number(1.0 / STRONGEST)], name + "_bounded")
        return kept, self.add("Min", [bounded, self.number(STRONGEST)], name + "_factor")

    def mean(self, source: str, axes: list[int], name: str) -> str:
        """ReduceMean that keeps the axes."""
        if self._opset >= AXES_AS_INPUT:
            return self.add("ReduceMean", [source, self.constant(name + "_axes", np.array(axes, np.int64))], name, keepdims=1)
        return self.add("ReduceMean", [source], name, axes=axes, keepdims=1)

    def number(self, value: float) -> str:
        """A scalar initializer."""
        return self.constant("number", np.array(value, np.float32))

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """An initializer; its name."""
        unused = self._fresh(name)
        self._proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), unused))
        return unused

    def add(self, op_type: str, inputs: list[str], name: str, exact: bool = False, **attributes: Any) -> str:
        """A node behind the one that makes the current source; the name of its output."""
        output = name if exact else self._fresh(name)
        node = helper.make_node(op_type, inputs, [output], **attributes)
        self._behind.setdefault(self._current, []).append(node)
        return output

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        nodes = []
        for node in self._proto.graph.node:
            nodes.append(node)
            for name in node.output:
                nodes += self._behind.get(name, [])
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._proto.graph.node[:]
        self._proto.graph.node.extend(kept)
        declared = {value.name for value in self._proto.graph.output}
        self._proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs if name not in declared)
        return self._proto

    def _fresh(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._taken:
            candidate, number = f"{name}_{number}", number + 1
        self._taken.add(candidate)
        return candidate
