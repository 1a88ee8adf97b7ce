"""Rainbow: a distributional, dueling, noisy deep Q-network for the discrete decision.

    logits(a) = V + A(a) - mean_a A   per atom,     Z(s, a) = softmax over atoms z_0..z_{M-1}
    target    = projection of  R + discount * z  onto the atoms, at the action that the online network prefers
    loss      = cross-entropy(target, Z(s, a)) + margin on the best episodes' choices

It reads the continuous agent's features and action and never changes them (no gradient flows back).
Source: Hessel et al., "Rainbow: Combining Improvements in Deep Reinforcement Learning" (AAAI 2018); projection:
Bellemare et al. (ICML 2017), algorithm 1. Each named component (double, dueling, noisy, distributional, prioritised,
n-step) can be switched off: prioritised and n-step in the replay, the others here. The margin is that of Hester et
al. (AAAI 2018), equation 2.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwc_onnx.search.networks import NoisyLinear, linear, soft_update
from hwc_onnx.search.replay import Batch


@dataclass(frozen=True)
class RainbowConfig:
    """Sizes, rates and switches. `low` and `high` bound the returns that the atoms represent."""

    hidden: int = 64
    rate: float = 5e-4
    tau: float = 0.01
    atoms: int = 31
    low: float = -1.0
    high: float = 1.0
    double: bool = True
    dueling: bool = True
    noisy: bool = True
    distributional: bool = True
    sigma: float = 0.2
    clip: float = 10.0
    margin: float = 0.05
    margin_weight: float = 0.5


class Head(nn.Module):
    """Features and action [batch, n] -> logits [batch, families, atoms] (one atom: plain values)."""

    def __init__(self, inputs: int, families: int, config: RainbowConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.families, self.atoms = families, config.atoms if config.distributional else 1
        self.dueling = config.dueling
        self.hidden = self._layer(inputs, config.hidden, config, generator)
        # families begin alike: what nothing is known about is not preferred
        self.advantage = self._layer(config.hidden, families * self.atoms, config, generator, scale=0.01)
        self.value = self._layer(config.hidden, self.atoms, config, generator) if config.dueling else None

    @staticmethod
    def _layer(
        inputs: int, outputs: int, config: RainbowConfig, generator: torch.Generator, scale: float = 1.0
    ) -> nn.Module:
        if config.noisy:
            return NoisyLinear(inputs, outputs, generator, config.sigma, scale)
        return linear(inputs, outputs, generator, scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits over atoms per family."""
        hidden = torch.relu(self.hidden(inputs))
        advantage: Tensor = self.advantage(hidden).view(-1, self.families, self.atoms)
        if self.value is None:
            return advantage
        value: Tensor = self.value(hidden).view(-1, 1, self.atoms)
        return value + advantage - advantage.mean(dim=1, keepdim=True)


class Rainbow:
    """The discrete agent."""

    def __init__(
        self, inputs: int, families: int, generator: torch.Generator, config: RainbowConfig | None = None
    ) -> None:
        self.config = config or RainbowConfig()
        self.families = families
        self.online = Head(inputs, families, self.config, generator)
        self.frozen = copy.deepcopy(self.online)
        self.optimiser = torch.optim.Adam(self.online.parameters(), lr=self.config.rate)
        self.support = torch.linspace(self.config.low, self.config.high, self.config.atoms)
        self.loss = 0.0
        """Of the last update."""

    def resample(self, generator: torch.Generator) -> None:
        """New exploration noise, kept for a whole episode so that it explores one consistent plan."""
        for network in (self.online, self.frozen):
            for module in network.modules():
                if isinstance(module, NoisyLinear):
                    module.resample(generator)

    def noise(self) -> list[Tensor]:
        """The exploration noise as it is now, for `set_noise`."""
        return [buffer.clone() for buffer in self.online.buffers()]

    def set_noise(self, noise: list[Tensor]) -> None:
        """Take up noise that `noise` returned."""
        for buffer, old in zip(self.online.buffers(), noise, strict=True):
            buffer.copy_(old)

    def silence(self) -> None:
        """No exploration noise: values are the means."""
        for network in (self.online, self.frozen):
            for module in network.modules():
                if isinstance(module, NoisyLinear):
                    module.silence()

    def values(self, inputs: Tensor, network: Head | None = None) -> Tensor:
        """Expected return per family, [batch, families]."""
        logits: Tensor = (network or self.online)(inputs)
        if not self.config.distributional:
            return logits[:, :, 0]
        expected: Tensor = (torch.softmax(logits, dim=2) * self.support).sum(dim=2)
        return expected

    def choose(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """The allowed family of largest expected return, [batch]."""
        with torch.no_grad():
            best: Tensor = self.values(inputs).masked_fill(~mask, -torch.inf).argmax(dim=1)
            return best

    def target(self, batch: Batch, following: Tensor) -> Tensor:
        """What the chosen family regresses to: probabilities [batch, atoms], or values [batch] without atoms."""
        reward, discount = torch.as_tensor(batch.target), torch.as_tensor(batch.discount)
        with torch.no_grad():
            chooser = self.online if self.config.double else self.frozen
            mask = torch.as_tensor(batch.mask)
            best = self.values(following, chooser).masked_fill(~mask, -torch.inf).argmax(dim=1)
            rows = torch.arange(len(best))
            logits: Tensor = self.frozen(following)[rows, best]
            if not self.config.distributional:
                value: Tensor = reward + discount * logits[:, 0]
                return value
            return project(self.support, reward, discount, torch.softmax(logits, dim=1))

    def update(self, batch: Batch, inputs: Tensor, following: Tensor) -> NDArray[np.float32]:
        """One step on rows of the replay; returns errors [batch] for the priorities.

        Args:
            batch: rows from the replay.
            inputs: features and executed action of these rows [batch, n], detached.
            following: features and the actor's action at the following observations [batch, n], detached.
        """
        family, weight = torch.as_tensor(batch.family), torch.as_tensor(batch.weight)
        target = self.target(batch, following)
        logits = self.online(inputs)
        chosen = logits[torch.arange(len(family)), family]
        if self.config.distributional:
            errors = -(target * torch.log_softmax(chosen, dim=1)).sum(dim=1)
        else:
            errors = nn.functional.smooth_l1_loss(chosen[:, 0], target, reduction="none")
        loss = (weight * errors).mean()
        elite = torch.as_tensor(batch.elite)
        if self.config.margin_weight and bool(elite.any()):
            loss = loss + self.config.margin_weight * self._margin(logits[elite], family[elite])
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.online.parameters(), self.config.clip)
        self.optimiser.step()
        self.loss = loss.item()
        soft_update(self.frozen, self.online, self.config.tau)
        result: NDArray[np.float32] = errors.detach().numpy()
        return result

    def _margin(self, logits: Tensor, family: Tensor) -> Tensor:
        """How far the elite choice falls short of every other choice plus a margin."""
        values = logits[:, :, 0]
        if self.config.distributional:
            values = (torch.softmax(logits, dim=2) * self.support).sum(dim=2)
        own = nn.functional.one_hot(family, self.families).bool()
        rivals = values + self.config.margin * (~own).float()
        return (rivals.max(dim=1).values - values[own]).mean()


def project(support: Tensor, reward: Tensor, discount: Tensor, probabilities: Tensor) -> Tensor:
    """The distribution of reward + discount * z on the atoms z, mass split between neighbours: [batch, atoms]."""
    atoms = len(support)
    low, high = float(support[0]), float(support[-1])
    moved = (reward[:, None] + discount[:, None] * support).clamp(low, high)
    position = (moved - low) / (high - low) * (atoms - 1)
    lower = position.floor().clamp(0, atoms - 1)
    upper_share = position - lower
    result = torch.zeros_like(probabilities)
    result.scatter_add_(1, lower.long(), probabilities * (1.0 - upper_share))
    result.scatter_add_(1, (lower.long() + 1).clamp(max=atoms - 1), probabilities * upper_share)
    return result
