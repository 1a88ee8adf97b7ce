"""The four sample networks, small enough to train on two cores and real enough to be hard to compress.

All read Fashion-MNIST images [B, 1, 28, 28], normalised with the training mean and standard deviation, and
return ten logits [B, 10].
"""

from __future__ import annotations

import torch
from torch import nn


def conv_bn(
    c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution without bias, batch normalisation and, unless `act` is None, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    ]
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection (He et al., CVPR 2016, figure 2)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(c_in, c_out, 3, stride)
        self.second = conv_bn(c_out, c_out, 3, act=None)
        same = stride == 1 and c_in == c_out
        self.skip = nn.Identity() if same else conv_bn(c_in, c_out, 1, stride, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.skip(x))


def resnet20() -> nn.Module:
    """ResNet-20 for small images: 16, 32 and 64 channels, three blocks each (He et al., section 4.2), 1x1 shortcuts."""
    blocks: list[nn.Module] = [conv_bn(1, 16, 3)]
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for index in range(3):
            blocks.append(BasicBlock(channels, width, stride if index == 0 else 1))
            channels = width
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (Sandler et al., CVPR 2018, figure 4b)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        self.block = nn.Sequential(
            conv_bn(c_in, hidden, 1, act=nn.ReLU6),
            conv_bn(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6),
            conv_bn(hidden, c_out, 1, act=None),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.residual else self.block(x)


def mobilenetv2_small() -> nn.Module:
    """A narrow MobileNetV2 for small images: a stem, eight inverted residuals and a 1x1 head, 26 convolutions."""
    plan = ((16, 1, 2), (16, 1, 2), (32, 2, 4), (32, 1, 4), (32, 1, 4), (64, 2, 4), (64, 1, 4), (64, 1, 4))
    layers: list[nn.Module] = [conv_bn(1, 16, 3, act=nn.ReLU6)]
    channels = 16
    for width, stride, expand in plan:
        layers.append(InvertedResidual(channels, width, stride, expand))
        channels = width
    layers.append(conv_bn(channels, 128, 1, act=nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def vgg_small() -> nn.Module:
    """Six 3x3 convolutions in three pooled stages and a two-layer head (Simonyan and Zisserman, ICLR 2015, style)."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (32, 64, 96):
        layers += [conv_bn(channels, width, 3), conv_bn(width, width, 3), nn.MaxPool2d(2)]
        channels = width
    head = [nn.Flatten(), nn.Linear(96 * 9, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *head)


class Attention(nn.Module):
    """Multi-head self-attention on tokens [B, T, D] (Vaswani et al., NeurIPS 2017, section 3.2.2)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens, dim = x.shape[1], x.shape[2]

        def split(t: torch.Tensor) -> torch.Tensor:
            return t.reshape(-1, tokens, self.heads, self.head_dim).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = torch.softmax(query @ key.transpose(-2, -1) * self.head_dim**-0.5, dim=-1)
        return self.project((scores @ value).transpose(1, 2).reshape(-1, tokens, dim))


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection (Dosovitskiy et al., ICLR 2021, section 3.1)."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """49 overlapping patches, 7x7 at stride 4 (Wang et al., PVT v2, 2022), learned positions, mean over tokens."""

    def __init__(self, dim: int = 96, depth: int = 4, heads: int = 4, hidden: int = 192) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 7, 4, 3)
        self.position = nn.Parameter(torch.randn(1, 49, dim) * 0.02)
        self.blocks = nn.Sequential(*[TransformerBlock(dim, heads, hidden) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def vit_tiny() -> nn.Module:
    """Four transformer blocks of width 96 with four heads."""
    return VisionTransformer()


ARCHITECTURES = {
    "resnet20": resnet20,
    "mobilenetv2_small": mobilenetv2_small,
    "vgg_small": vgg_small,
    "vit_tiny": vit_tiny,
}
