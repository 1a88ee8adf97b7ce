"""The two agents together: what they do in a situation, what they remember and how they are trained.

Real and simulated decisions are kept apart, so that a batch is half real however many simulations there are. DDPG and
Rainbow draw the same rows with the same priorities, the sum of both errors; Rainbow reads DDPG's features without
changing them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwc_onnx.search.ddpg import DDPG, DDPGConfig, truncated_normal
from hwc_onnx.search.environment import DYNAMIC, SOLVER, Situation, dynamic_features
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.rainbow import Rainbow, RainbowConfig
from hwc_onnx.search.replay import Replay, Transition

CONFIDENCE = 0.05
"""By how much (scaled reward) a family must beat "solver" before the policy names it unasked."""
BATCH = 64
CHANGES = 12
"""A trial that differs from the solver's plan in more units teaches the surrogate only."""


class Agents:
    """DDPG, Rainbow and their replays for one problem."""

    def __init__(
        self,
        size: int,
        families: int,
        seed: int,
        ddpg: DDPGConfig | None = None,
        rainbow: RainbowConfig | None = None,
    ) -> None:
        torch.set_num_threads(1)  # the networks are tiny, and evaluations need the cores
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.families = families
        self.ddpg = DDPG(self.size, 1, self.families, generator, ddpg)
        self.rainbow = Rainbow(self.ddpg.config.hidden + 1, self.families, generator, rainbow)
        self.real = Replay(4_000)
        self.simulated = Replay(2_000)

    @classmethod
    def for_situation(cls, situation: Situation, seed: int) -> Agents:
        """Agents that fit a situation's observations and families."""
        return cls(situation.features.shape[1] + DYNAMIC, len(situation.families), seed)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Networks, optimisers and replays as arrays."""
        arrays: dict[str, NDArray[np.generic]] = {"updates": np.array([self.ddpg.updates])}
        for name, network in self._networks().items():
            for key, tensor in network.state_dict().items():
                arrays[f"net.{name}.{key}"] = tensor.numpy()
        for name, optimiser in self._optimisers().items():
            for index, slot in optimiser.state_dict()["state"].items():
                for key, tensor in slot.items():
                    arrays[f"opt.{name}.{index}.{key}"] = tensor.numpy()
        for name, replay in (("real", self.real), ("simulated", self.simulated)):
            arrays |= {f"replay.{name}.{key}": array for key, array in replay.state().items()}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def restored(cls, size: int, families: int, arrays: Mapping[str, NDArray[np.generic]]) -> Agents:
        """The agents that `state` described."""
        agents = cls(size, families, 0)
        agents.ddpg.updates = int(arrays["updates"][0])
        for name, network in agents._networks().items():
            network.load_state_dict(
                {key: torch.from_numpy(arrays[f"net.{name}.{key}"].copy()) for key in network.state_dict()}
            )
        for name, optimiser in agents._optimisers().items():
            described = optimiser.state_dict()
            slots: dict[int, dict[str, Tensor]] = {}
            for path, array in arrays.items():
                if path.startswith(f"opt.{name}."):
                    _, _, index, key = path.split(".")
                    slots.setdefault(int(index), {})[key] = torch.from_numpy(np.array(array))
            described["state"] = slots
            optimiser.load_state_dict(described)
        for name, replay in (("real", agents.real), ("simulated", agents.simulated)):
            prefix = f"replay.{name}."
            replay.restore({path[len(prefix) :]: array for path, array in arrays.items() if path.startswith(prefix)})
        return agents

    def _networks(self) -> dict[str, torch.nn.Module]:
        return {
            "actor": self.ddpg.actor,
            "critics": self.ddpg.critics,
            "target_actor": self.ddpg.target_actor,
            "target_critics": self.ddpg.target_critics,
            "online": self.rainbow.online,
            "frozen": self.rainbow.frozen,
        }

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "actor": self.ddpg.actor_optimiser,
            "critics": self.ddpg.critic_optimiser,
            "rainbow": self.rainbow.optimiser,
        }

    def mean_policy(self, situation: Situation) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Corrections and families [units + 1] without exploration."""
        self.rainbow.silence()
        steps = len(situation.features)
        corrections = np.zeros(steps, dtype=np.float32)
        families = np.zeros(steps, dtype=np.int64)
        for step in range(steps):
            dynamic = dynamic_features(corrections, families, step, steps - 1)
            action, values = self._act(situation.observation(step, dynamic)[None, :])
            corrections[step] = action[0, 0]
            families[step] = self._confident(values[0], situation.masks[step])
        return corrections, families

    def explore(
        self,
        situation: Situation,
        corrections: NDArray[np.float32],
        families: NDArray[np.int64],
        units: NDArray[np.int64],
        sigma: float,
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """A copy of the policy's decisions with these units redrawn: noisy corrections, Rainbow's noisy choice."""
        self.rainbow.resample(torch.Generator().manual_seed(int(rng.integers(2**62))))
        moved, named = corrections.copy(), families.copy()
        for step in np.sort(units):
            dynamic = dynamic_features(moved, named, int(step), len(corrections) - 1)
            observation = situation.observation(int(step), dynamic)[None, :]
            action, features = self.ddpg.act(observation)
            moved[step] = truncated_normal(action, sigma, rng)[0, 0]
            inputs = torch.cat([features, torch.tensor([[moved[step]]])], dim=1)
            mask = torch.as_tensor(situation.masks[step][None, :])
            named[step] = int(self.rainbow.choose(inputs, mask)[0]) if rng.random() < 0.5 else SOLVER
        self.rainbow.silence()
        return moved, named

    def transitions(
        self,
        situation: Situation,
        corrections: NDArray[np.float32],
        families: NDArray[np.int64],
        units: NDArray[np.int64],
        target: float,
    ) -> tuple[Transition, ...]:
        """One finished row per perturbed unit, all credited with the same difference."""
        rows = []
        for step in units:
            dynamic = dynamic_features(corrections, families, int(step), len(corrections) - 1)
            observation = situation.observation(int(step), dynamic)
            mask = situation.masks[step]
            action = np.array([corrections[step]], dtype=np.float32)
            rows.append(
                Transition(
                    observation, action, int(families[step]), float(np.clip(target, -1.0, 1.0)), observation, mask, 0.0
                )
            )
        return tuple(rows)

    def inferred(self, situation: Situation, choices: Choices) -> tuple[Transition, ...]:
        """Decisions that would have moved the solver's plan towards `choices`: milder means a larger damage."""
        zero, table = situation.zero.choices, situation.model.table
        changed = np.flatnonzero(zero != choices)
        if not 0 < len(changed) <= CHANGES:
            return ()
        corrections = np.zeros(len(situation.features), dtype=np.float32)
        families = np.zeros(len(situation.features), dtype=np.int64)
        for u in changed:
            corrections[u] = 0.5 if table.damage[u, choices[u]] < table.damage[u, zero[u]] else -0.5
            named = 1 + table.family[u, choices[u]]
            if table.family[u, choices[u]] != table.family[u, zero[u]] and situation.masks[u, named]:
                families[u] = named
        return self.transitions(situation, corrections, families, changed, 0.0)

    def store_simulated(self, rows: Sequence[Transition]) -> None:
        """Remember simulated decisions; the ring forgets those of old surrogates."""
        for row in rows:
            self.simulated.add(row)

    def store_real(self, rows: Sequence[Transition], target: float, elite: bool) -> None:
        """Remember measured decisions with their measured credit."""
        for row in rows:
            self.real.add(replace(row, target=target, elite=elite))

    def train(self, updates: int, rng: np.random.Generator) -> None:
        """Alternate batches of real and simulated decisions."""
        for step in range(updates):
            replay = self.real if step % 2 == 0 and len(self.real) >= 8 else self.simulated
            if len(replay) < 8:
                continue
            self._update(replay, rng)

    def _update(self, replay: Replay, rng: np.random.Generator) -> None:
        batch = replay.sample(BATCH, rng)
        observation, following = torch.as_tensor(batch.observation), torch.as_tensor(batch.following)
        every = torch.ones((len(batch.family), self.families), dtype=torch.bool)
        with torch.no_grad():
            action, features = self.ddpg.actor(observation)
            executed = torch.cat([features, torch.as_tensor(batch.action)], dim=1)
            preferred = self.rainbow.choose(torch.cat([features, action], dim=1), every)
            next_action, next_features = self.ddpg.actor(following)
            next_inputs = torch.cat([next_features, next_action], dim=1)
            next_family = self.rainbow.choose(next_inputs, torch.as_tensor(batch.mask))
        surprise = self.rainbow.update(batch, executed, next_inputs)
        errors = self.ddpg.update(batch, next_family, preferred)
        replay.reprioritise(batch.position, surprise + errors)

    def _act(self, observation: NDArray[np.float32]) -> tuple[NDArray[np.float32], Tensor]:
        action, features = self.ddpg.act(observation)
        with torch.no_grad():
            values = self.rainbow.values(torch.cat([features, torch.as_tensor(action)], dim=1))
        return action, values

    @staticmethod
    def _confident(values: Tensor, mask: NDArray[np.bool_]) -> int:
        allowed = values.masked_fill(~torch.as_tensor(mask), -torch.inf)
        best = int(allowed.argmax())
        return best if float(allowed[best] - values[SOLVER]) > CONFIDENCE else SOLVER
