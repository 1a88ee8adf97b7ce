"""The two agents together: what they do in a situation, what they remember and how they are trained.

Real and simulated decisions are kept apart, so that a batch is half real however many simulations there are. DDPG and
Rainbow draw the same rows with the same priorities, the sum of both errors; Rainbow reads DDPG's features without
changing them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwc_onnx.search.ddpg import DDPG, DDPGConfig, truncated_normal
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.features import FAMILIES, OBSERVATION, SOLVER, dynamic_features
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.rainbow import Rainbow, RainbowConfig
from hwc_onnx.search.replay import Batch, Replay, Transition

CONFIDENCE = 0.05
"""By how much (scaled reward) a family must beat "solver" before the policy names it unasked."""
BATCH = 64
TARGETS = {"target_actor": "actor", "target_critics": "critics", "frozen": "online"}
"""Networks that follow others slowly."""
POLICY = ("actor", "critics", "online")
CURVES = ("credit", "critic_loss", "actor_loss", "rainbow_loss")
CHANGES = 12
"""A trial that differs from the solver's plan in more units teaches the surrogate only."""


class Agents:
    """DDPG, Rainbow and their replays; of the same size for every problem unless told otherwise.

    Without `corrects` DDPG's corrections are zero, without `names` Rainbow leaves every family to the solver.
    """

    def __init__(
        self,
        seed: int,
        size: int = OBSERVATION,
        families: int = FAMILIES,
        ddpg: DDPGConfig | None = None,
        rainbow: RainbowConfig | None = None,
        corrects: bool = True,
        names: bool = True,
        actions: int = 1,
    ) -> None:
        torch.set_num_threads(1)  # the networks are tiny, and evaluations need the cores
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.families = families
        self.ddpg = DDPG(self.size, actions, self.families, generator, ddpg)
        self.rainbow = Rainbow(self.ddpg.config.hidden + actions, self.families, generator, rainbow)
        self.real = Replay(4_000)
        self.simulated = Replay(2_000)
        self.evidence = 0.0
        self.curves: dict[str, float] = {}
        """How learning went after the last trial: the credit of its plan, and mean losses of its updates (`CURVES`)."""
        self._corrects, self._names = corrects, names

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Networks, optimisers and replays as arrays."""
        arrays: dict[str, NDArray[np.generic]] = {
            "updates": np.array([self.ddpg.updates]),
            "evidence": np.array([self.evidence]),
        } | {f"curve.{name}": np.array([value]) for name, value in self.curves.items()}
        arrays |= self._arrays(self._networks())
        for name, optimiser in self._optimisers().items():
            for index, slot in optimiser.state_dict()["state"].items():
                for key, tensor in slot.items():
                    arrays[f"opt.{name}.{index}.{key}"] = tensor.numpy()
        for name, replay in (("real", self.real), ("simulated", self.simulated)):
            arrays |= {f"replay.{name}.{key}": array for key, array in replay.state().items()}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def policy(self) -> dict[str, NDArray[np.generic]]:
        """The networks that decide and judge, without their targets: what a policy file holds."""
        return self._arrays(POLICY)

    def take_up(self, policy: Mapping[str, NDArray[np.generic]]) -> None:
        """Begin with the networks that `policy` described, targets included."""
        self._load(POLICY, policy)
        for target, source in TARGETS.items():
            self._networks()[target].load_state_dict(self._networks()[source].state_dict())

    def _arrays(self, names: Iterable[str]) -> dict[str, NDArray[np.generic]]:
        return {
            f"net.{name}.{key}": np.ascontiguousarray(tensor.numpy())
            for name in names
            for key, tensor in self._networks()[name].state_dict().items()
        }

    def _load(self, names: Iterable[str], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        for name in names:
            network = self._networks()[name]
            network.load_state_dict(
                {key: torch.from_numpy(np.array(arrays[f"net.{name}.{key}"])) for key in network.state_dict()}
            )

    @classmethod
    def restored(cls, size: int, families: int, arrays: Mapping[str, NDArray[np.generic]]) -> Agents:
        """The agents that `state` described."""
        agents = cls(0, size, families)
        agents.ddpg.updates = int(arrays["updates"][0])
        agents.evidence = float(arrays["evidence"][0])
        agents.curves = {name: float(arrays[f"curve.{name}"][0]) for name in CURVES if f"curve.{name}" in arrays}
        agents._load(agents._networks(), arrays)
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
        still = np.zeros((1, len(situation.features)), dtype=np.bool_)
        corrections, families, _ = self.walk(situation, still, 0.0, None)
        return corrections[0], families[0]

    def walk(
        self, situation: Situation, explored: NDArray[np.bool_], sigma: float, rng: np.random.Generator | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Episodes side by side: corrections, families and observations [episodes, units + 1, ...].

        Where `explored` [episodes, units + 1] says so, the correction is drawn around the actor's and Rainbow chooses with
        noise, one draw for all episodes, in half of the cases; elsewhere the policy decides as it is.
        """
        episodes, steps = explored.shape
        corrections = np.zeros((episodes, steps), dtype=np.float32)
        families = np.zeros((episodes, steps), dtype=np.int64)
        seen = np.zeros((episodes, steps, self.size), dtype=np.float32)
        draw = rng.random((episodes, steps)) < 0.5 if rng is not None else explored
        if rng is not None:
            self.rainbow.resample(torch.Generator().manual_seed(int(rng.integers(2**62))))
        noise = self.rainbow.noise()
        for step in range(steps):
            seen[:, step] = situation.observation(step, dynamic_features(corrections, families, step))
            action, features = self.ddpg.act(seen[:, step])
            here = explored[:, step]
            if rng is not None and here.any():
                action[here] = truncated_normal(action[here], sigma, rng)
            if not self._corrects:
                action[:] = 0.0
            corrections[:, step] = action[:, 0]
            mask = torch.as_tensor(situation.masks[step])
            if not self._names or not bool(mask[SOLVER + 1 :].any()):
                continue
            inputs = torch.cat([features, torch.as_tensor(action)], dim=1)
            self.rainbow.silence()
            families[:, step] = self._confident(inputs, mask)
            if here.any():
                self.rainbow.set_noise(noise)
                noisy = self.rainbow.choose(inputs, mask[None, :]).numpy()
                families[here, step] = np.where(draw[here, step], noisy[here], SOLVER)
        self.rainbow.silence()
        return corrections, families, seen

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
            seen = situation.observation(int(step), dynamic_features(corrections, families, int(step)))
            action, mask = corrections[step : step + 1], situation.masks[step]
            rows.append(Transition(seen, action, int(families[step]), target, seen, mask, 0.0))
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
            named = situation.named[u, choices[u]]
            if named != situation.named[u, zero[u]] and situation.masks[u, named]:
                families[u] = named
        return self.transitions(situation, corrections, families, changed, 0.0)

    def store_simulated(self, rows: Sequence[Transition]) -> None:
        """Remember simulated decisions; the ring forgets those of old surrogates."""
        for row in rows:
            self.simulated.add(row)

    def store_real(self, rows: Sequence[Transition], target: float, elite: bool) -> None:
        """Remember measured decisions with their measured credit."""
        self.curves = {"credit": target}
        for row in rows:
            self.real.add(replace(row, target=target, elite=elite))

    def train(self, updates: int, rng: np.random.Generator) -> None:
        """Alternate batches of real and simulated decisions."""
        losses: dict[str, list[float]] = {}
        for step in range(updates):
            replay = self.real if step % 2 == 0 and len(self.real) >= 8 else self.simulated
            if len(replay) < 8:
                continue
            batch = replay.sample(BATCH, rng)
            replay.reprioritise(batch.position, self.learn(batch))
            for name, value in (*self.ddpg.losses.items(), ("rainbow_loss", self.rainbow.loss)):
                losses.setdefault(name, []).append(value)
        self.curves |= {name: float(np.mean(values)) for name, values in losses.items()}

    def learn(self, batch: Batch) -> NDArray[np.float32]:
        """One step of both agents on the same rows; returns the sum of their errors [batch]."""
        observation, following = torch.as_tensor(batch.observation), torch.as_tensor(batch.following)
        allowed = torch.as_tensor(batch.mask)
        with torch.no_grad():
            action, features = self.ddpg.actor(observation)
            executed = torch.cat([features, torch.as_tensor(batch.action)], dim=1)
            preferred = self.rainbow.choose(torch.cat([features, action], dim=1), allowed)
            next_action, next_features = self.ddpg.actor(following)
            next_inputs = torch.cat([next_features, next_action], dim=1)
            next_family = self.rainbow.choose(next_inputs, allowed)
        surprise = self.rainbow.update(batch, executed, next_inputs)
        errors = self.ddpg.update(batch, next_family, preferred)
        return surprise + errors

    def _confident(self, inputs: Tensor, mask: Tensor) -> NDArray[np.int64]:
        with torch.no_grad():
            values = self.rainbow.values(inputs)
        best = values.masked_fill(~mask[None, :], -torch.inf).argmax(dim=1)
        better = values.gather(1, best[:, None])[:, 0] - values[:, SOLVER] > CONFIDENCE
        result: NDArray[np.int64] = torch.where(better, best, SOLVER).numpy()
        return result
