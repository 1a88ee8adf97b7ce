"""Networks built from their published shapes with random weights: their cost needs no training."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Builder:
    def __init__(self, channels: int, size: int) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.name, self.channels, self.size = "x", channels, size

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        """One node; the name of its result."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, *shape: int) -> str:
        """Random weights."""
        name = f"w{len(self.weights)}"
        values = self.rng.normal(0, 0.05, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, source: str, cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        """A convolution with bias, padded to keep the size."""
        inputs = [source, self.constant(cout, cin // groups, kernel, kernel), self.constant(cout)]
        pads = [kernel // 2] * 4
        return self.add("Conv", inputs, strides=[stride] * 2, pads=pads, group=groups)

    def classifier(self, source: str, cin: int, classes: int) -> onnx.ModelProto:
        """Pooling, a fully connected layer, and the finished model."""
        pooled = self.add("Flatten", [self.add("GlobalAveragePool", [source])])
        last = self.add("Gemm", [pooled, self.constant(cin, classes), self.constant(classes)])
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
            for name, shape in (("x", [1, self.channels, self.size, self.size]), (last, [1, classes]))
        ]
        graph = helper.make_graph(self.nodes, "network", ends[0], ends[1], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet50() -> onnx.ModelProto:
    """ResNet-50 for 224 x 224 images, batch normalization folded (He et al., CVPR 2016, table 1; stride in the 3x3)."""
    b = _Builder(3, 224)
    x = b.add("Relu", [b.conv("x", 3, 64, 7, 2)])
    x = b.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    cin = 64
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = b.add("Relu", [b.conv(x, cin, width, 1)])
            y = b.add("Relu", [b.conv(y, width, width, 3, stride)])
            y = b.conv(y, width, 4 * width, 1)
            shortcut = b.conv(x, cin, 4 * width, 1, stride) if block == 0 else x
            x, cin = b.add("Relu", [b.add("Add", [y, shortcut])]), 4 * width
    return b.classifier(x, cin, 1000)


def mobilenetv2() -> onnx.ModelProto:
    """MobileNetV2 for 224 x 224 images, batch normalization folded (Sandler et al., CVPR 2018, table 2)."""
    b = _Builder(3, 224)

    def relu6(source: str) -> str:
        return b.add("Relu", [source])

    x, cin = relu6(b.conv("x", 3, 32, 3, 2)), 32
    for expand, cout, blocks, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for block in range(blocks):
            stride, wide = first if block == 0 else 1, cin * expand
            y = x if expand == 1 else relu6(b.conv(x, cin, wide, 1))
            y = relu6(b.conv(y, wide, wide, 3, stride, wide))
            y = b.conv(y, wide, cout, 1)
            x, cin = b.add("Add", [y, x]) if stride == 1 and cin == cout else y, cout
    return b.classifier(relu6(b.conv(x, cin, 1280, 1)), 1280, 1000)
