"""Layer shapes for every tool of the comparison: plain data, so that each tool's own environment reads it.

Dimensions are `B G K C OY OX FY FX`: batch, groups, output channels and input channels *per group*, output rows and
columns, kernel rows and columns. A depthwise convolution has its channels in G and K = C = 1; a matrix product has its
rows in OY, its columns in K and the inner dimension in C, attention heads in G.

No layer has padding. The input is the whole span of the windows, (OY - 1) stride + (FY - 1) dilation + 1 rows, and as
many columns by the same rule: it has as many pixels as the padded input would have, all of them count as real, and so
all tools count the same input. Pixels that a stride jumps over (1x1 windows, stride 2) are part of no window.

Shapes that a network has several times are listed once, with the name of their first appearance.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

DIMS = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")


@dataclass(frozen=True)
class Case:
    """One layer shape. `dims` are in the order of `DIMS`; stride and dilation are (rows, columns)."""

    network: str
    layer: str
    dims: tuple[int, int, int, int, int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def name(self) -> str:
        """Name by which results are stored: network/layer."""
        return f"{self.network}/{self.layer}"

    @property
    def sizes(self) -> dict[str, int]:
        """Size of every dimension by its name."""
        return dict(zip(DIMS, self.dims, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer."""
        return prod(self.dims)


def _conv(
    network: str, layer: str, cin: int, cout: int, out: int, kernel: int, stride: int = 1, groups: int = 1
) -> Case:
    dims = (1, groups, cout // groups, cin // groups, out, out, kernel, kernel)
    return Case(network, layer, dims, (stride, stride))


def _depthwise(network: str, layer: str, channels: int, out: int, kernel: int, stride: int = 1) -> Case:
    return _conv(network, layer, channels, channels, out, kernel, stride, groups=channels)


def _matmul(network: str, layer: str, rows: int, inner: int, columns: int, heads: int = 1) -> Case:
    return Case(network, layer, (1, heads, columns, inner, rows, 1, 1, 1))


# He et al., 2015, with the stride in the 3x3 convolution as in torchvision. The first expand of each stage and the
# shortcut of stage 2 have the same shape.
RESNET50 = (
    _conv("resnet50", "conv1", 3, 64, 112, 7, 2),
    _conv("resnet50", "stage2.reduce_first", 64, 64, 56, 1),
    _conv("resnet50", "stage2.conv3x3", 64, 64, 56, 3),
    _conv("resnet50", "stage2.expand", 64, 256, 56, 1),
    _conv("resnet50", "stage2.reduce", 256, 64, 56, 1),
    _conv("resnet50", "stage3.reduce_first", 256, 128, 56, 1),
    _conv("resnet50", "stage3.conv3x3_stride", 128, 128, 28, 3, 2),
    _conv("resnet50", "stage3.expand", 128, 512, 28, 1),
    _conv("resnet50", "stage3.shortcut", 256, 512, 28, 1, 2),
    _conv("resnet50", "stage3.reduce", 512, 128, 28, 1),
    _conv("resnet50", "stage3.conv3x3", 128, 128, 28, 3),
    _conv("resnet50", "stage4.reduce_first", 512, 256, 28, 1),
    _conv("resnet50", "stage4.conv3x3_stride", 256, 256, 14, 3, 2),
    _conv("resnet50", "stage4.expand", 256, 1024, 14, 1),
    _conv("resnet50", "stage4.shortcut", 512, 1024, 14, 1, 2),
    _conv("resnet50", "stage4.reduce", 1024, 256, 14, 1),
    _conv("resnet50", "stage4.conv3x3", 256, 256, 14, 3),
    _conv("resnet50", "stage5.reduce_first", 1024, 512, 14, 1),
    _conv("resnet50", "stage5.conv3x3_stride", 512, 512, 7, 3, 2),
    _conv("resnet50", "stage5.expand", 512, 2048, 7, 1),
    _conv("resnet50", "stage5.shortcut", 1024, 2048, 7, 1, 2),
    _conv("resnet50", "stage5.reduce", 2048, 512, 7, 1),
    _conv("resnet50", "stage5.conv3x3", 512, 512, 7, 3),
    _matmul("resnet50", "fc", 1, 2048, 1000),
)

# Sandler et al., 2018, width 1.0. `b2` .. `b17` are the inverted residual blocks.
MOBILENETV2 = (
    _conv("mobilenetv2", "conv1", 3, 32, 112, 3, 2),
    _depthwise("mobilenetv2", "b1.depthwise", 32, 112, 3),
    _conv("mobilenetv2", "b1.project", 32, 16, 112, 1),
    _conv("mobilenetv2", "b2.expand", 16, 96, 112, 1),
    _depthwise("mobilenetv2", "b2.depthwise", 96, 56, 3, 2),
    _conv("mobilenetv2", "b2.project", 96, 24, 56, 1),
    _conv("mobilenetv2", "b3.expand", 24, 144, 56, 1),
    _depthwise("mobilenetv2", "b3.depthwise", 144, 56, 3),
    _conv("mobilenetv2", "b3.project", 144, 24, 56, 1),
    _depthwise("mobilenetv2", "b4.depthwise", 144, 28, 3, 2),
    _conv("mobilenetv2", "b4.project", 144, 32, 28, 1),
    _conv("mobilenetv2", "b5.expand", 32, 192, 28, 1),
    _depthwise("mobilenetv2", "b5.depthwise", 192, 28, 3),
    _conv("mobilenetv2", "b5.project", 192, 32, 28, 1),
    _depthwise("mobilenetv2", "b7.depthwise", 192, 14, 3, 2),
    _conv("mobilenetv2", "b7.project", 192, 64, 14, 1),
    _conv("mobilenetv2", "b8.expand", 64, 384, 14, 1),
    _depthwise("mobilenetv2", "b8.depthwise", 384, 14, 3),
    _conv("mobilenetv2", "b8.project", 384, 64, 14, 1),
    _conv("mobilenetv2", "b11.project", 384, 96, 14, 1),
    _conv("mobilenetv2", "b12.expand", 96, 576, 14, 1),
    _depthwise("mobilenetv2", "b12.depthwise", 576, 14, 3),
    _conv("mobilenetv2", "b12.project", 576, 96, 14, 1),
    _depthwise("mobilenetv2", "b14.depthwise", 576, 7, 3, 2),
    _conv("mobilenetv2", "b14.project", 576, 160, 7, 1),
    _conv("mobilenetv2", "b15.expand", 160, 960, 7, 1),
    _depthwise("mobilenetv2", "b15.depthwise", 960, 7, 3),
    _conv("mobilenetv2", "b15.project", 960, 160, 7, 1),
    _conv("mobilenetv2", "b17.project", 960, 320, 7, 1),
    _conv("mobilenetv2", "last", 320, 1280, 7, 1),
    _matmul("mobilenetv2", "fc", 1, 1280, 1000),
)

VGG16 = (
    _conv("vgg16", "conv1_1", 3, 64, 224, 3),
    _conv("vgg16", "conv1_2", 64, 64, 224, 3),
    _conv("vgg16", "conv3_2", 256, 256, 56, 3),
    _conv("vgg16", "conv5_1", 512, 512, 14, 3),
    _matmul("vgg16", "fc6", 1, 25088, 4096),
)

# The fixed-size variant of EfficientNet-B0 for edge devices (TensorFlow model zoo), 224 x 224.
EFFICIENTNET_LITE0 = (
    _conv("efficientnet-lite0", "b4.expand", 40, 240, 28, 1),
    _depthwise("efficientnet-lite0", "b3.depthwise5x5_stride", 144, 28, 5, 2),
    _depthwise("efficientnet-lite0", "b4.depthwise5x5", 240, 28, 5),
    _depthwise("efficientnet-lite0", "b5.depthwise3x3_stride", 240, 14, 3, 2),
    _depthwise("efficientnet-lite0", "b11.depthwise5x5_stride", 672, 7, 5, 2),
    _conv("efficientnet-lite0", "b15.project", 1152, 320, 7, 1),
)

VIT_B = (
    _matmul("vit-b", "qkv", 197, 768, 2304),
    _matmul("vit-b", "q_kT", 197, 64, 197, heads=12),
    _matmul("vit-b", "attention_v", 197, 197, 64, heads=12),
    _matmul("vit-b", "projection", 197, 768, 768),
    _matmul("vit-b", "mlp1", 197, 768, 3072),
    _matmul("vit-b", "mlp2", 197, 3072, 768),
)

# One time step, batch 1: 512 inputs, 1024 hidden units, four gates.
LSTM = (
    _matmul("lstm", "input", 1, 512, 4096),
    _matmul("lstm", "recurrent", 1, 1024, 4096),
)

# Krizhevsky et al., 2012: input of 227, convolutions 2, 4 and 5 in two groups.
ALEXNET = (
    _conv("alexnet", "conv1", 3, 96, 55, 11, 4),
    _conv("alexnet", "conv2", 96, 256, 27, 5, groups=2),
    _conv("alexnet", "conv3", 256, 384, 13, 3),
    _conv("alexnet", "conv4", 384, 384, 13, 3, groups=2),
    _conv("alexnet", "conv5", 384, 256, 13, 3, groups=2),
)

CASES = (*RESNET50, *MOBILENETV2, *VGG16, *EFFICIENTNET_LITE0, *VIT_B, *LSTM, *ALEXNET)

# A spread over kinds of layers, run first so that a half-finished run already says something.
SPREAD = (
    "resnet50/stage3.conv3x3",
    "resnet50/stage4.reduce",
    "mobilenetv2/b8.depthwise",
    "mobilenetv2/b3.expand",
    "resnet50/conv1",
    "resnet50/fc",
    "efficientnet-lite0/b3.depthwise5x5_stride",
    "vit-b/q_kT",
    "alexnet/conv3",
    "resnet50/stage4.shortcut",
    "resnet50/stage5.conv3x3_stride",
    "vit-b/mlp1",
)


def ordered() -> list[Case]:
    """All cases, the spread first."""
    by_name = {case.name: case for case in CASES}
    return [by_name[name] for name in SPREAD] + [case for case in CASES if case.name not in SPREAD]
