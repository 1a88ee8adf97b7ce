"""Small network parts for the agents, initialised from a generator that is passed in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def linear(inputs: int, outputs: int, generator: torch.Generator, scale: float = 1.0) -> nn.Linear:
    """A linear layer with uniform weights of bound scale / sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = scale / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def torso(inputs: int, hidden: int, generator: torch.Generator, layer_norm: bool) -> nn.Sequential:
    """Two hidden layers with rectifiers, normalised on request: [batch, inputs] -> [batch, hidden]."""
    parts: list[nn.Module] = []
    for width in (inputs, hidden):
        parts.append(linear(width, hidden, generator))
        if layer_norm:
            parts.append(nn.LayerNorm(hidden))
        parts.append(nn.ReLU())
    return nn.Sequential(*parts)


class NoisyLinear(nn.Module):
    """y = (mu + sigma * f(e_out) f(e_in)^T) x + mu_b + sigma_b * f(e_out), with f(e) = sign(e) sqrt|e|.

    Without `resample` the noise is zero and the layer is deterministic.
    Source: Fortunato et al., "Noisy Networks for Exploration" (ICLR 2018), section 3, factorised noise.
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(
        self, inputs: int, outputs: int, generator: torch.Generator, sigma: float, scale: float = 1.0
    ) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        reach = scale * bound
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-reach, reach, generator=generator))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-reach, reach, generator=generator))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.zeros(inputs))
        self.register_buffer("noise_out", torch.zeros(outputs))

    def resample(self, generator: torch.Generator) -> None:
        """Draw new noise."""
        for buffer in (self.noise_in, self.noise_out):
            draw = torch.randn(buffer.shape, generator=generator)
            buffer.copy_(draw.sign() * draw.abs().sqrt())

    def silence(self) -> None:
        """Set the noise to zero."""
        self.noise_in.zero_()
        self.noise_out.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, inputs] -> [batch, outputs]."""
        weight = self.weight + self.weight_sigma * torch.outer(self.noise_out, self.noise_in)
        return nn.functional.linear(inputs, weight, self.bias + self.bias_sigma * self.noise_out)


def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online."""
    with torch.no_grad():
        for old, new in zip(target.parameters(), online.parameters(), strict=True):
            old.lerp_(new, tau)
