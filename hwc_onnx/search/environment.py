"""The decisions of one plan as a reinforcement-learning environment.

An episode walks over the units in network order and ends with one step for the margin. At each unit the continuous
action corrects the predicted log damage of that unit, in [-1, 1], and the discrete action names an algorithm family or
leaves the choice to the solver. After the last step the solver decodes all corrections into the cheapest plan whose
corrected drop meets the limit less the margin; the reward is how much better that plan is expected to be than the
solver's own. All zeros and "solver" everywhere is the solver's own plan, with reward 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import KINDS, Choices

Array = NDArray[np.float32]

SOLVER = 0
"""The family that leaves the choice to the solver."""
REACH = 0.7
"""Largest correction of a log damage; an action of 1 scales a damage by e^0.7."""
MARGIN_REACH = 0.25
"""Largest margin, as a share of the allowed drop."""
SCALE = 10.0
"""Rewards are gains in reward points of `Model.reward` times this, clipped to [-1, 1]."""
PENALTY = 5.0
DYNAMIC = 4


@dataclass(frozen=True)
class Played:
    """The plan of an episode and its expected energy, drop (points) and reward (see `Model.reward`)."""

    choices: Choices
    energy: float
    drop: float
    value: float


class Situation:
    """What an episode sees: the fitted model, a reference plan and the features of every step.

    `features` [units + 1, n] and `masks` [units + 1, families] have one row per unit and a last row for the margin.
    """

    def __init__(self, model: Model, decoder: Decoder, starts: list[Choices], progress: float) -> None:
        self.model = model
        self.decoder = decoder
        self.families = ("solver", *model.table.families)
        solution = model.decode(decoder, model.accepted_drop(), starts)
        self.multiplier = solution.multiplier
        self.zero = self.judge(solution.choices)
        self.masks = self._masks()
        self.features = self._features(progress)

    def judge(self, choices: Choices) -> Played:
        """Expected figures of a plan; the energy is exact."""
        energy = self.model.problem.energy(choices)
        drop = self.model.forecast(choices[None, :]).drop
        return Played(choices, energy, float(drop[0]), float(self.model.reward(np.array([energy]), drop)[0]))

    def decode(self, corrections: Array, families: NDArray[np.int64]) -> Played:
        """The plan of one episode: corrections and families [units + 1], the last row being the margin's."""
        margin = 1.0 - MARGIN_REACH * float(corrections[-1])
        forced = np.flatnonzero(families[:-1] != SOLVER)
        penalty = self._penalty(forced, families) if len(forced) else None
        solution = self.model.decode(
            self.decoder,
            self.model.accepted_drop() * margin,
            [self.zero.choices],
            REACH * corrections[:-1].astype(np.float64),
            penalty,
            self.multiplier,
            rounds=2,
        )
        return self.judge(solution.choices)

    def observation(self, step: int, dynamic: Array) -> Array:
        """What the agent sees at a step: fixed features and what it did so far, [..., n + DYNAMIC]."""
        fixed = np.broadcast_to(self.features[step], (*dynamic.shape[:-1], self.features.shape[1]))
        return np.concatenate([fixed, dynamic], axis=-1).astype(np.float32)

    def gain(self, played: Played) -> float:
        """Scaled advantage over the solver's own plan, in [-1, 1]."""
        return float(np.clip(SCALE * (played.value - self.zero.value), -1.0, 1.0))

    def _penalty(self, forced: NDArray[np.int64], families: NDArray[np.int64]) -> NDArray[np.float64]:
        table = self.model.table
        penalty = np.zeros(table.damage.shape)
        for u in forced:
            wanted = families[u] - 1
            penalty[u] = np.where(table.family[u] == wanted, 0.0, PENALTY)
            owner = self.decoder.space.owner.get(int(u))
            if owner is not None and self.families[families[u]] != "none":
                sizes = len(self.decoder.space.pruned[owner])
                penalty[owner, :sizes] += PENALTY * self.decoder.space.pruned[owner]
        return penalty

    def _masks(self) -> NDArray[np.bool_]:
        units = self.model.problem.units
        masks = np.zeros((len(units) + 1, len(self.families)), dtype=np.bool_)
        masks[:, SOLVER] = True
        for u, unit in enumerate(units):
            if len(unit.algorithms) > 1:
                masks[u, [1 + self.model.table.families.index(name) for name in unit.algorithms]] = True
        return masks

    def _features(self, progress: float) -> Array:
        model, zero = self.model, self.zero.choices
        units = model.problem.units
        cost = model.table.costs(model.surrogate.mean)
        share = model.surrogate.contributions(zero[None, :])[0]
        share = share / max(share.sum(), 1e-12)
        doubt = model.surrogate.doubt()
        rows = np.zeros((len(units) + 1, len(KINDS) + 10))
        for u, unit in enumerate(units):
            energy, damage = self.decoder.unit_rows(cost, zero, u)
            rows[u, KINDS.index(unit.kind)] = 1.0
            milder, stronger = damage < damage[zero[u]], energy < energy[zero[u]] - 1e-9
            rows[u, len(KINDS) :] = (
                u / len(units),
                np.sqrt(share[u]),
                doubt[u],
                model.surrogate.mean.gain[u],
                zero[u] / max(len(unit.options) - 1, 1),
                np.log1p(len(unit.options)) / 4.0,
                10.0 * (energy.max() - energy[zero[u]]),
                10.0 * (energy[zero[u]] - energy[stronger].max(initial=-np.inf)) if stronger.any() else 0.0,
                np.sqrt(max(damage[zero[u]] - damage[milder].max(initial=0.0), 0.0) / max(damage.max(), 1e-12)),
                progress,
            )
        rows[-1, -1] = progress
        return np.clip(rows, -5.0, 5.0).astype(np.float32)


def dynamic_features(corrections: Array, families: NDArray[np.int64], step: int, units: int) -> Array:
    """What happened so far in episodes, [..., DYNAMIC]: last correction, mean, mean size, share of forced units."""
    if step == 0:
        return np.zeros((*corrections.shape[:-1], DYNAMIC), dtype=np.float32)
    done = corrections[..., :step]
    forced = (families[..., :step] != SOLVER).mean(axis=-1)
    parts = (done[..., -1], done.mean(axis=-1), np.abs(done).mean(axis=-1), forced)
    return np.stack(parts, axis=-1).astype(np.float32)


class PlanEnv(gymnasium.Env[Array, dict[str, Any]]):
    """`Situation` behind the gymnasium interface: a dictionary action {"correction": [1], "family": int}."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self._units = len(situation.model.problem.units)
        size = situation.features.shape[1] + DYNAMIC
        self.observation_space = spaces.Box(-5.0, 5.0, (size,), np.float32)
        self.action_space = spaces.Dict(
            {
                "correction": spaces.Box(-1.0, 1.0, (1,), np.float32),
                "family": spaces.Discrete(len(situation.families)),
            }
        )
        self._step = 0
        self._corrections = np.zeros(self._units + 1, dtype=np.float32)
        self._families = np.zeros(self._units + 1, dtype=np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """The first unit's observation; `info["mask"]` marks the families that exist there."""
        super().reset(seed=seed)
        self._step = 0
        self._corrections[:] = 0.0
        self._families[:] = SOLVER
        return self._observe()

    def step(self, action: dict[str, Any]) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One decision; a family that does not exist at this unit is read as "solver"."""
        family = int(action["family"])
        self._corrections[self._step] = np.clip(float(np.asarray(action["correction"]).reshape(-1)[0]), -1.0, 1.0)
        self._families[self._step] = family if self.situation.masks[self._step, family] else SOLVER
        self._step += 1
        if self._step <= self._units:
            observation, info = self._observe()
            return observation, 0.0, False, False, info
        played = self.situation.decode(self._corrections, self._families)
        self._step = self._units
        observation, info = self._observe()
        return observation, self.situation.gain(played), True, False, {**info, "played": played}

    def _observe(self) -> tuple[Array, dict[str, Any]]:
        dynamic = dynamic_features(self._corrections, self._families, self._step, self._units)
        return self.situation.observation(self._step, dynamic), {"mask": self.situation.masks[self._step].copy()}
