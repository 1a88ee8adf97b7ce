"""Small transformer-type networks with random weights: what pytorchcv lacks. `NETWORKS` maps a name to (module, inputs)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from attention import Attention, GroupedQueryAttention, RMSNorm
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Tensor, ...]]


class Block(nn.Module):
    """Pre-norm attention and MLP with residuals."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, fused)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """A stack of blocks over [batch, tokens, width] between two linear layers."""

    def __init__(self, blocks: list[nn.Module], width: int) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = nn.Linear(32, width), nn.Sequential(*blocks), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean token."""
        return self.head(self.blocks(self.embed(x)).mean(1))


class ViT(nn.Module):
    """Vision transformer with class token and learned positions."""

    def __init__(self, width: int = 192, depth: int = 3, fused: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, 3, fused) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the class token."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class SwinBlock(nn.Module):
    """Attention inside windows, shifted by half a window with torch.roll."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.block = Block(width, heads, fused=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, height, width, channels] to the same."""
        n, h, w, _ = x.shape
        k = self.window
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(n, h // k, k, w // k, k, x.shape[3]).permute(0, 1, 3, 2, 4, 5).flatten(0, 2).flatten(1, 2)
        x = self.block(x).view(n, h // k, w // k, k, k, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, -1)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x


class Swin(nn.Module):
    """Two stages of shifted windows with patch merging between them."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(2 * width)
        self.first = nn.Sequential(SwinBlock(width, 3, 4, 0), SwinBlock(width, 3, 4, 2))
        self.merge = nn.Linear(4 * width, 2 * width, bias=False)
        self.second = nn.Sequential(SwinBlock(2 * width, 6, 4, 0), SwinBlock(2 * width, 6, 4, 2))
        self.head = nn.Linear(2 * width, 100)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.first(self.patches(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.norm(self.second(self.merge(x))).mean((1, 2)))


class Conformer(nn.Module):
    """Half-step MLP, attention, gated convolution, half-step MLP."""

    def __init__(self, width: int = 144) -> None:
        super().__init__()
        self.macaron = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
            for _ in range(2)
        )
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4, fused=True)
        self.gate = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, 15, padding=7, groups=width)
        self.batch_norm, self.out = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, width] to the same."""
        x = x + 0.5 * self.macaron[0](x)
        x = x + self.attention(self.norm1(x))
        y = F.glu(self.gate(self.norm2(x).transpose(1, 2)), 1)
        x = x + self.out(F.silu(self.batch_norm(self.depthwise(y)))).transpose(1, 2)
        return self.norm3(x + 0.5 * self.macaron[1](x))


class Mixer(nn.Module):
    """MLP-Mixer: one MLP over tokens, one over channels."""

    def __init__(self, tokens: int = 16, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, width, 16, 16), nn.Linear(width, 1000)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))
            for _ in range(depth)
            for size, inner in ((tokens, 64), (width, 512))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        for place, (norm, mlp) in enumerate(zip(self.norms, self.mlps, strict=True)):
            y = norm(x)
            x = x + (mlp(y) if place % 2 else mlp(y.transpose(1, 2)).transpose(1, 2))
        return self.head(x.mean(1))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm over channels, MLP, layer scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        y = self.narrow(F.gelu(self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """A decoder block with grouped queries, RMSNorm and SwiGLU, with embedding and vocabulary head."""

    def __init__(self, width: int = 128, words: int = 500) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(words, width), nn.Linear(width, words, bias=False)
        self.norm1, self.norm2, self.norm3 = RMSNorm(width), RMSNorm(width), RMSNorm(width)
        self.attention = GroupedQueryAttention(width, heads=8, shared=2)
        self.gate, self.up = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        """Logits of the next word."""
        x = self.embed(words)
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return self.head(self.norm3(x + self.down(F.silu(self.gate(y)) * self.up(y))))


class Bert(nn.Module):
    """Embeddings of words, positions and segments, two post-norm layers, pooled output."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.words, self.segments = nn.Embedding(1000, width), nn.Embedding(2, width)
        self.positions = nn.Embedding(64, width)
        self.norm, self.pool, self.head = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 512, batch_first=True) for _ in range(2))

    def forward(self, words: Tensor, segments: Tensor) -> Tensor:
        """Logits of the first token."""
        places = torch.arange(words.shape[1], device=words.device)
        x = self.norm(self.words(words) + self.segments(segments) + self.positions(places))
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.tanh(self.pool(x[:, 0])))


class MobileViT(nn.Module):
    """Convolutions, attention over unfolded patches, and a fusing convolution."""

    def __init__(self, width: int = 64, inner: int = 96) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.local = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.SiLU())
        self.into, self.back = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)
        self.blocks = nn.Sequential(Block(inner, 4, fused=False), Block(inner, 4, fused=False))
        self.fuse, self.head = nn.Conv2d(2 * width, width, 3, 1, 1), nn.Linear(width, 100)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        y = self.into(self.local(x))
        n, c, h, w = y.shape
        y = y.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(n * 4, h * w // 4, c)
        y = self.blocks(y).view(n, 2, 2, h // 2, w // 2, c).permute(0, 5, 3, 1, 4, 2).reshape(n, c, h, w)
        return self.head(F.silu(self.fuse(torch.cat([x, self.back(y)], 1))).mean((2, 3)))


class Detr(nn.Module):
    """Convolutional features, encoder, decoder with learned queries, class and box heads."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 64, 7, 4, 3), nn.ReLU(), nn.Conv2d(64, width, 3, 4, 1))
        self.encoder = nn.TransformerEncoderLayer(width, 4, 256, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(width, 4, 256, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, 20, width))
        self.position = nn.Parameter(torch.randn(1, 16, width))
        self.kind = nn.Linear(width, 21)
        self.box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and boxes of the queries."""
        memory = self.encoder(self.features(x).flatten(2).transpose(1, 2) + self.position)
        found = self.decoder(self.queries.expand(x.shape[0], -1, -1), memory)
        return self.kind(found), self.box(found)


def _convnext() -> nn.Module:
    stages = [
        nn.Conv2d(3, 64, 4, 4),
        ConvNeXtBlock(64),
        ConvNeXtBlock(64),
        nn.Conv2d(64, 128, 2, 2),
        ConvNeXtBlock(128),
    ]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 1000))


def _image() -> tuple[Tensor, ...]:
    return (torch.randn(1, 3, 64, 64),)


def _sequence() -> tuple[Tensor, ...]:
    return (torch.randn(1, 24, 32),)


NETWORKS: dict[str, Callable[[], Made]] = {
    "encoder_postnorm": lambda: (
        Tokens([nn.TransformerEncoderLayer(128, 4, 512, batch_first=True) for _ in range(2)], 128),
        _sequence(),
    ),
    "encoder_prenorm_gelu": lambda: (
        Tokens([nn.TransformerEncoderLayer(128, 4, 512, activation="gelu", batch_first=True, norm_first=True)], 128),
        _sequence(),
    ),
    "attention_fused": lambda: (Tokens([Block(128, 4, True), Block(128, 4, True)], 128), _sequence()),
    "attention_spelled_out": lambda: (Tokens([Block(128, 4, False), Block(128, 4, False)], 128), _sequence()),
    "vit": lambda: (ViT(), _image()),
    "vit_spelled_out": lambda: (ViT(fused=False), _image()),
    "swin": lambda: (Swin(), _image()),
    "conformer": lambda: (Tokens([Conformer(), Conformer()], 144), _sequence()),
    "mlp_mixer": lambda: (Mixer(), _image()),
    "convnext": lambda: (_convnext(), _image()),
    "decoder_gqa": lambda: (Decoder(), (torch.randint(0, 500, (1, 24)),)),
    "bert": lambda: (Bert(), (torch.randint(0, 1000, (1, 24)), torch.randint(0, 2, (1, 24)))),
    "mobilevit": lambda: (MobileViT(), _image()),
    "detr": lambda: (Detr(), _image()),
}
