"""Attention layers of the transformer-type networks. Sizes that pruning changes are read off the tensors, never kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values; fused or spelled out."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused, self.scale = heads, fused, (width // heads) ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * self.scale, -1) @ v
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


class GroupedQueryAttention(nn.Module):
    """Causal attention in which several query heads share one key and value head."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.q, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * self.size, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.heads, -1).transpose(1, 2)
        k, v = (part(x).view(n, t, self.shared, -1).transpose(1, 2) for part in (self.k, self.v))
        k, v = (part.repeat_interleave(self.heads // self.shared, 1) for part in (k, v))
        scores = q @ k.transpose(-2, -1) * self.size**-0.5
        hidden = torch.triu(torch.ones(t, t, dtype=torch.bool, device=x.device), 1)
        y = torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ v
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


class RMSNorm(nn.Module):
    """Division by the root mean square, spelled out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """The last axis normalized."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
