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

from hwc_onnx.pruning.table import NONE
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.features import (
    BOUND,
    FAMILIES,
    OBSERVATION,
    SOLVER,
    STATIC,
    TRAITS,
    UNIT_FEATURES,
    VOCABULARY,
    dynamic_features,
    family_of,
    task_features,
    traits,
    unit_features,
)
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices

Array = NDArray[np.float32]

REACH = 0.7
"""Largest correction of a log damage; an action of 1 scales a damage by e^0.7."""
MARGIN_REACH = 0.25
"""Largest margin, as a share of the allowed drop."""
SCALE = 0.25
"""Rewards are gains in energy times this and the number of units, clipped to [-1, 1]: one unit counts alike in any depth."""
PENALTY = 5.0
DEAREST = 0.25
"""Most energy that a unit of log damage is taken to be worth: where no plan is allowed the multiplier has no bound."""


@dataclass(frozen=True)
class Played:
    """The plan of an episode, its energy and its log damage, expected or measured."""

    choices: Choices
    energy: float
    log_damage: float


class Situation:
    """What an episode sees: the fitted model, a reference plan and the features of every step.

    `features` [units + 1, n] and `masks` [units + 1, families] have one row per unit and a last row for the margin.
    """

    def __init__(self, model: Model, decoder: Decoder, starts: list[Choices], progress: float, measured: int = 0) -> None:
        self.model = model
        self.decoder = decoder
        self.named = np.array([family_of(name) for name in model.table.families])[model.table.family]
        solution = model.decode(decoder, model.accepted_drop(), starts)
        self.multiplier = solution.multiplier
        self.zero = self.judge(solution.choices)
        mean = model.surrogate.mean
        self.exchange = min(solution.multiplier * (solution.damage + mean.floor) / mean.slope, DEAREST)
        self.scale = SCALE * len(model.problem.units)
        self.masks = self._masks()
        self.features = self._features(progress, measured)

    def judge(self, choices: Choices) -> Played:
        """Expected figures of a plan; the energy is exact."""
        log_damage = self.model.surrogate.predict(choices[None, :])[0]
        return Played(choices, self.model.problem.energy(choices), float(log_damage[0]))

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
        """Advantage over the solver's own plan, in [-1, 1]: energy saved and damage spared, one paid for with the other at
        the solver's rate (`exchange`: energy for a unit of log damage).
        """
        saved, spared = self.zero.energy - played.energy, self.zero.log_damage - played.log_damage
        return float(np.clip(self.scale * (saved + self.exchange * spared), -1.0, 1.0))

    def _penalty(self, forced: NDArray[np.int64], families: NDArray[np.int64]) -> NDArray[np.float64]:
        table = self.model.table
        penalty = np.zeros(table.damage.shape)
        for u in forced:
            penalty[u] = np.where(self.named[u] == families[u], 0.0, PENALTY)
            owner = self.decoder.space.owner.get(int(u))
            if owner is not None and VOCABULARY[families[u]] != NONE:
                sizes = len(self.decoder.space.pruned[owner])
                penalty[owner, :sizes] += PENALTY * self.decoder.space.pruned[owner]
        return penalty

    def _masks(self) -> NDArray[np.bool_]:
        units = self.model.problem.units
        masks = np.zeros((len(units) + 1, FAMILIES), dtype=np.bool_)
        masks[:, SOLVER] = True
        for u, unit in enumerate(units):
            if len(unit.algorithms) > 1:
                masks[u, [family_of(name) for name in unit.algorithms]] = True
        return masks

    def _features(self, progress: float, measured: int) -> Array:
        units = len(self.model.problem.units)
        rows = np.zeros((units + 1, STATIC), dtype=np.float32)
        rows[:-1, :UNIT_FEATURES] = unit_features(self.model, self.decoder, self.zero.choices)
        rows[:, UNIT_FEATURES:-TRAITS] = task_features(self.model, measured, progress)
        rows[:, -TRAITS:] = traits(self.model.problem, self.decoder)
        return rows


class PlanEnv(gymnasium.Env[Array, dict[str, Any]]):
    """`Situation` behind the gymnasium interface: a dictionary action {"correction": [1], "family": int}."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation
        self._units = len(situation.model.problem.units)
        self.observation_space = spaces.Box(-BOUND, BOUND, (OBSERVATION,), np.float32)
        self.action_space = spaces.Dict(
            {
                "correction": spaces.Box(-1.0, 1.0, (1,), np.float32),
                "family": spaces.Discrete(FAMILIES),
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
        dynamic = dynamic_features(self._corrections, self._families, self._step)
        return self.situation.observation(self._step, dynamic), {"mask": self.situation.masks[self._step].copy()}
