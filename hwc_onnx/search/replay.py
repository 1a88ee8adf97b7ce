"""Prioritised replay of decisions, shared by both agents: one row holds what the continuous agent chose, what the
discrete agent chose, and the return that followed.

    P(i) ~ (priority_i + eps)^alpha,   weight_i = (N P(i))^-beta / max_j weight_j

Returns are n-step sums; with n = None they run to the end of the episode and nothing is bootstrapped.
Source: Schaul et al., "Prioritized Experience Replay" (ICLR 2016), section 3.3; n-step returns as in Hessel et al.,
"Rainbow" (AAAI 2018), section "Extensions to DQN".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Transition:
    """One decision. `mask` marks the families allowed at the next observation; `discount` is 0 at an episode's end."""

    observation: Array
    action: Array
    family: int
    target: float
    following: Array
    mask: NDArray[np.bool_]
    discount: float
    elite: bool = False


@dataclass(frozen=True)
class Batch:
    """Rows drawn from the replay: arrays [batch, ...], their positions and importance weights [batch]."""

    observation: Array
    action: Array
    family: NDArray[np.int64]
    target: Array
    following: Array
    mask: NDArray[np.bool_]
    discount: Array
    elite: NDArray[np.bool_]
    weight: Array
    position: NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One step of an episode as it was played."""

    observation: Array
    mask: NDArray[np.bool_]
    action: Array
    family: int
    reward: float


def n_step(
    episode: list[Step], gamma: float, steps: int | None, last: tuple[Array, NDArray[np.bool_]] | None = None
) -> list[Transition]:
    """An episode as transitions with n-step returns (Monte Carlo when `steps` is None).

    `last` is the observation and mask after the final step if the episode was cut off rather than finished.
    """
    transitions = []
    horizon = len(episode) if steps is None else steps
    for t, step in enumerate(episode):
        end = min(t + horizon, len(episode))
        target = sum(gamma ** (k - t) * episode[k].reward for k in range(t, end))
        finished = end == len(episode) and last is None
        after = (step.observation, step.mask)
        if not finished:
            after = (episode[end].observation, episode[end].mask) if end < len(episode) else (last or after)
        discount = 0.0 if finished else gamma ** (end - t)
        transitions.append(
            Transition(step.observation, step.action, step.family, float(target), after[0], after[1], discount)
        )
    return transitions


class Replay:
    """A ring of transitions with priorities. `alpha` 0 draws uniformly."""

    def __init__(self, capacity: int = 20_000, alpha: float = 0.5, beta: float = 0.4) -> None:
        self.capacity = capacity
        self.alpha = alpha
        self.beta = beta
        self._rows: list[Transition] = []
        self._priority = np.zeros(capacity)
        self._next = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, transition: Transition) -> None:
        """Store a row with the largest priority so far, so that it is seen soon."""
        priority = float(self._priority[: len(self._rows)].max(initial=1.0))
        if len(self._rows) < self.capacity:
            self._rows.append(transition)
        else:
            self._rows[self._next] = transition
        self._priority[self._next] = priority
        self._next = (self._next + 1) % self.capacity

    def sample(self, size: int, rng: np.random.Generator) -> Batch:
        """Draw rows with replacement."""
        mass = (self._priority[: len(self._rows)] + 1e-3) ** self.alpha
        chance = mass / mass.sum()
        position = rng.choice(len(self._rows), size=size, p=chance)
        weight = (len(self._rows) * chance[position]) ** -self.beta
        rows = [self._rows[i] for i in position]
        return Batch(
            np.stack([row.observation for row in rows]),
            np.stack([row.action for row in rows]),
            np.array([row.family for row in rows], dtype=np.int64),
            np.array([row.target for row in rows], dtype=np.float32),
            np.stack([row.following for row in rows]),
            np.stack([row.mask for row in rows]),
            np.array([row.discount for row in rows], dtype=np.float32),
            np.array([row.elite for row in rows], dtype=np.bool_),
            (weight / weight.max()).astype(np.float32),
            position,
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Rows, priorities and the ring's position as arrays (empty when there are no rows)."""
        if not self._rows:
            return {}
        rows = self._rows
        return {
            "observation": np.stack([row.observation for row in rows]),
            "action": np.stack([row.action for row in rows]),
            "family": np.array([row.family for row in rows], dtype=np.int64),
            "target": np.array([row.target for row in rows], dtype=np.float64),
            "following": np.stack([row.following for row in rows]),
            "mask": np.stack([row.mask for row in rows]),
            "discount": np.array([row.discount for row in rows], dtype=np.float64),
            "elite": np.array([row.elite for row in rows], dtype=np.bool_),
            "priority": self._priority[: len(rows)].copy(),
            "next": np.array([self._next], dtype=np.int64),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up what `state` described."""
        if not arrays:
            return
        self._rows = [
            Transition(
                np.asarray(arrays["observation"][i], dtype=np.float32),
                np.asarray(arrays["action"][i], dtype=np.float32),
                int(arrays["family"][i]),
                float(arrays["target"][i]),
                np.asarray(arrays["following"][i], dtype=np.float32),
                np.asarray(arrays["mask"][i], dtype=np.bool_),
                float(arrays["discount"][i]),
                bool(arrays["elite"][i]),
            )
            for i in range(len(arrays["family"]))
        ]
        self._priority[: len(self._rows)] = arrays["priority"]
        self._next = int(arrays["next"][0])

    def reprioritise(self, position: NDArray[np.int64], error: NDArray[np.floating]) -> None:
        """Set priorities to the latest errors; elite rows never fall below the batch median."""
        floor = float(np.median(np.abs(error)))
        for i, value in zip(position, np.abs(error), strict=True):
            self._priority[i] = max(float(value), floor) if self._rows[i].elite else float(value)
