"""Small networks that keep BatchNormalizations in their ONNX file, and their training, for `batch_norms.py`.

preactivation   three stages of three residual blocks with the normalization before each Conv (He et al., ECCV 2016)
dense           three blocks of five layers, each reading all before it (Huang et al., CVPR 2017)
branches        two Convs with their Relu side by side, a normalization behind the Concat

They learn from the 10,000 test images of fashion_mnist.npz, so that the 5,000 others are left to calibrate and measure on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

EPOCHS = 8
BATCH = 100
RATE = 0.1


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    """A convolution without bias."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)


def head(channels: int) -> list[nn.Module]:
    """Average over positions, ten logits."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


class Preactivation(nn.Module):
    """BatchNormalization, Relu, Conv, twice, and a skip (He et al., ECCV 2016, figure 4e)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU())
        self.deep = nn.Sequential(conv(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out), nn.ReLU(), conv(c_out, c_out))
        self.skip = conv(c_in, c_out, 1, stride) if stride != 1 or c_in != c_out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, c_in, H, W] to [B, c_out, H / stride, W / stride]."""
        read = self.before(x)
        return self.deep(read) + (x if self.skip is None else self.skip(read))


class Growing(nn.Module):
    """BatchNormalization, Relu, Conv, whose channels are put beside the input's."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU(), conv(c_in, growth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, c_in, H, W] to [B, c_in + growth, H, W]."""
        return torch.cat([x, self.deep(x)], 1)


class Branches(nn.Module):
    """A 3x3 and a 1x1 convolution, each with a Relu, side by side, then BatchNormalization."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.wide, self.narrow = (nn.Conv2d(c_in, c_out // 2, k, stride, k // 2) for k in (3, 1))
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, c_in, H, W] to [B, c_out, H / stride, W / stride]."""
        return self.norm(torch.cat([torch.relu(self.wide(x)), torch.relu(self.narrow(x))], 1))


def preactivation() -> nn.Module:
    """Widths 12, 24 and 48."""
    layers, channels = [conv(1, 12)], 12
    for stage, width in enumerate((12, 24, 48)):
        for block in range(3):
            layers.append(Preactivation(channels, width, 2 if stage and not block else 1))
            channels = width
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *head(channels))


def dense() -> nn.Module:
    """Growth 10, channels halved between the blocks."""
    layers, channels = [conv(1, 16, 3, 2)], 16
    for block in range(3):
        for _ in range(5):
            layers.append(Growing(channels, 10))
            channels += 10
        if block < 2:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *head(channels))


def branches() -> nn.Module:
    """Six blocks, two of them strided."""
    layers, channels = [], 1
    for width, stride in ((24, 1), (32, 1), (48, 2), (48, 1), (64, 2), (64, 1)):
        layers.append(Branches(channels, width, stride))
        channels = width
    return nn.Sequential(*layers, *head(channels))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"preactivation": preactivation, "dense": dense, "branches": branches}


def train(name: str, data: Path, path: Path) -> None:
    """Train one network, the same way every time, and write it to `path` (opset 17, dynamic batch)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stored = np.load(data)
    mean, std = float(stored["mean"][0]), float(stored["std"][0])
    x = (torch.from_numpy(stored["x_holdout"]).float() / 255 - mean) / std
    y = torch.from_numpy(stored["y_holdout"])
    model = NETWORKS[name]()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * (len(x) // BATCH))
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            images = x[batch]
            if torch.rand(()) < 0.5:
                images = images.flip(3)
            loss = nn.functional.cross_entropy(model(images), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.onnx.export(
        model.eval(),
        (x[:1],),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
