"""DDPG: a deterministic actor for the continuous decision, improved through a critic.

    critic:  Q(s, u, k) -> target = n-step return + discount * min_i Q'_i(s', actor'(s'), k')
    actor:   maximise min_i Q_i(s, actor(s), k*) - restraint |actor(s)|^2  (- elite imitation)

k is the family that the discrete agent chose, k* the one it prefers now. With Monte Carlo returns the discount is zero
and nothing is bootstrapped.
Source: Lillicrap et al., "Continuous control with deep reinforcement learning" (ICLR 2016), algorithm 1.
Differs from the paper: twin critics and a delayed actor (Fujimoto et al., ICML 2018, sections 4.2 and 5.2), layer
normalisation, the critic also reads the discrete choice, imitation of the best episodes (Oh et al., ICML 2018), and a
pull towards doing nothing, since a critic of few decisions flatters large actions (the behaviour term of TD3+BC,
Fujimoto and Gu, NeurIPS 2021, equation 3, with zero, the solver's choice, as the behaviour). Each is a switch of
`DDPGConfig`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwc_onnx.search.networks import linear, soft_update, torso
from hwc_onnx.search.replay import Batch


@dataclass(frozen=True)
class DDPGConfig:
    """Sizes, rates and switches."""

    hidden: int = 64
    actor_rate: float = 3e-4
    critic_rate: float = 1e-3
    tau: float = 0.01
    twin: bool = True
    layer_norm: bool = True
    target_networks: bool = True
    actor_delay: int = 2
    clip: float = 10.0
    imitation: float = 0.2
    restraint: float = 0.03
    per_family: bool = False
    """One action for each family; critics see that of the chosen one alone (P-DQN, Xiong et al., arXiv 1810.06394, section 3)."""


class Actor(nn.Module):
    """Observation [batch, n] -> features [batch, hidden] -> action [batch, m] in (-1, 1); near zero at first."""

    def __init__(self, observation: int, action: int, config: DDPGConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.torso = torso(observation, config.hidden, generator, config.layer_norm)
        self.head = linear(config.hidden, action, generator, scale=1e-3)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """The action and the features that the discrete agent reads."""
        features = self.torso(observation)
        return torch.tanh(self.head(features)), features


class Critic(nn.Module):
    """Value of observation, action and family (one-hot): [batch, n], [batch, m], [batch] -> [batch]."""

    def __init__(
        self, observation: int, action: int, families: int, config: DDPGConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.families, self.per_family = families, config.per_family
        self.torso = torso(observation + action + families, config.hidden, generator, config.layer_norm)
        self.head = linear(config.hidden, 1, generator)

    def forward(self, observation: Tensor, action: Tensor, family: Tensor) -> Tensor:
        """The expected return."""
        one_hot = nn.functional.one_hot(family, self.families).float()
        seen = action * one_hot if self.per_family else action
        value: Tensor = self.head(self.torso(torch.cat([observation, seen, one_hot], dim=1)))
        return value[:, 0]


class DDPG:
    """The continuous agent."""

    def __init__(
        self, observation: int, action: int, families: int, generator: torch.Generator, config: DDPGConfig | None = None
    ) -> None:
        self.config = config or DDPGConfig()
        self.actor = Actor(observation, action, self.config, generator)
        count = 2 if self.config.twin else 1
        self.critics = nn.ModuleList(
            [Critic(observation, action, families, self.config, generator) for _ in range(count)]
        )
        self.target_actor = copy.deepcopy(self.actor)
        self.target_critics = copy.deepcopy(self.critics)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=self.config.actor_rate)
        self.critic_optimiser = torch.optim.Adam(self.critics.parameters(), lr=self.config.critic_rate)
        self.updates = 0
        self.losses: dict[str, float] = {}
        """Of the last update, by name; an update without an actor step has none of the actor."""

    def act(self, observation: NDArray[np.float32]) -> tuple[NDArray[np.float32], Tensor]:
        """Mean actions [batch, m] and features [batch, hidden] for observations [batch, n]."""
        with torch.no_grad():
            action, features = self.actor(torch.as_tensor(observation))
        return action.numpy(), features

    def value(self, observation: Tensor, action: Tensor, family: Tensor, target: bool = False) -> Tensor:
        """The smallest critic's value, [batch]."""
        critics = self.target_critics if target and self.config.target_networks else self.critics
        return torch.stack([critic(observation, action, family) for critic in critics]).min(dim=0).values

    def target(self, batch: Batch, next_family: Tensor) -> Tensor:
        """What the critics regress to, [batch]."""
        reward, discount = torch.as_tensor(batch.target), torch.as_tensor(batch.discount)
        if not np.any(batch.discount):
            return reward
        following = torch.as_tensor(batch.following)
        actor = self.target_actor if self.config.target_networks else self.actor
        with torch.no_grad():
            action, _ = actor(following)
            return reward + discount * self.value(following, action, next_family, target=True)

    def update(self, batch: Batch, next_family: Tensor, preferred: Tensor) -> NDArray[np.float32]:
        """One critic step, and every `actor_delay` steps one actor step; returns |errors| [batch].

        Args:
            batch: rows from the replay.
            next_family: the discrete agent's choice at the following observations [batch].
            preferred: its choice at these observations under the actor's own action [batch].
        """
        observation, action = torch.as_tensor(batch.observation), torch.as_tensor(batch.action)
        family, weight = torch.as_tensor(batch.family), torch.as_tensor(batch.weight)
        target = self.target(batch, next_family)
        values = torch.stack([critic(observation, action, family) for critic in self.critics])
        loss = (weight * nn.functional.smooth_l1_loss(values, target.expand_as(values), reduction="none")).mean()
        _step(self.critic_optimiser, loss, self.critics, self.config.clip)
        self.losses = {"critic_loss": loss.item()}
        self.updates += 1
        if self.updates % self.config.actor_delay == 0:
            self._improve_actor(observation, action, preferred, family, torch.as_tensor(batch.elite))
        if self.config.target_networks:
            soft_update(self.target_critics, self.critics, self.config.tau)
            soft_update(self.target_actor, self.actor, self.config.tau)
        errors: NDArray[np.float32] = (values.detach() - target).abs().mean(dim=0).numpy()
        return errors

    def _improve_actor(self, observation: Tensor, action: Tensor, preferred: Tensor, family: Tensor, elite: Tensor) -> None:
        chosen, _ = self.actor(observation)
        loss = -self.value(observation, chosen, preferred).mean() + self.config.restraint * (chosen**2).mean()
        if self.config.imitation and bool(elite.any()):
            missed = (chosen - action) ** 2
            missed = missed.gather(1, family[:, None])[:, 0] if self.config.per_family else missed.mean(dim=1)
            loss = loss + self.config.imitation * missed[elite].mean()
        _step(self.actor_optimiser, loss, self.actor, self.config.clip)
        self.losses["actor_loss"] = loss.item()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor, network: nn.Module, clip: float) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimiser.step()


def truncated_normal(mean: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws around `mean` restricted to [-1, 1] by the inverse cumulative distribution.

    Source: the exploration of AMC (He et al., ECCV 2018), section 4.
    """
    from scipy.special import ndtr, ndtri

    low, high = ndtr((-1.0 - mean) / sigma), ndtr((1.0 - mean) / sigma)
    draw = mean + sigma * ndtri(low + rng.random(mean.shape) * (high - low))
    result: NDArray[np.float32] = np.clip(draw, -1.0, 1.0).astype(np.float32)
    return result
