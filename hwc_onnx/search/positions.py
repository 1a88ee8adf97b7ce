"""A plan as positions in menus: the walk of the second mode of the agents, where no solver decodes.

For every unit and algorithm the options that nothing beats in energy and damage are a menu, from mild to strong. A walk visits each
channel group before its layers and each stored tensor before the layer that reads it; at a unit an algorithm is named and a position
in its menu given, in [-1, 1]. The energy is kept up step by step, with all couplings, and so is the damage that the model expects; a
*damage wall* leaves out what would bring it beyond 1.5 times what the limit allows, were all later units left alone.

Source: parametrised actions, one position for each algorithm, P-DQN (Xiong et al., arXiv 1810.06394, section 3); state of budgets spent
and a bound that keeps episodes feasible, AMC (He et al., ECCV 2018, section 3.2); shaping by potentials, Ng et al. (ICML 1999).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from hwc_onnx.pruning.table import NONE
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.features import BOUND, FAMILIES, STATIC, family_of
from hwc_onnx.search.menus import front
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.space import Space

Array = NDArray[np.float32]

WALL = 1.5
"""Most damage of a walk, as a multiple of what the drop at which a plan is accepted allows."""
SPENDING = 0.5
"""What the whole allowed damage is worth in the potential, as a share of the INT8 baseline's energy."""
PENALTY = 1.5
"""Reward lost for exceeding the limit by once the limit: more than any energy can bring."""
DYNAMIC = 5
OBSERVATION = STATIC + DYNAMIC


class Menus:
    """`options` [units, families, positions] are option indices, `sizes` [units, families] say how many; 0: the algorithm is absent."""

    def __init__(self, situation: Situation) -> None:
        problem, decoder, table = situation.model.problem, situation.decoder, situation.model.table
        start = decoder.space.canonical(problem.start)
        rows: list[list[NDArray[np.int64]]] = []
        self._family = [np.array([family_of(option.algorithm) for option in unit.options]) for unit in problem.units]
        for u in range(len(problem.units)):
            named = self._family[u]
            energy, damage = decoder.rows.row(start, u), table.damage[u]
            here = []
            for family in range(FAMILIES):
                own = np.flatnonzero(named == family)
                own = own[front(energy[own], damage[own])] if len(own) else own
                here.append(own[np.lexsort((-energy[own], damage[own]))])
            rows.append(here)
        self.sizes = np.array([[len(own) for own in here] for here in rows], dtype=np.int64)
        self.options = np.zeros((*self.sizes.shape, int(self.sizes.max())), dtype=np.int64)
        for u, here in enumerate(rows):
            for family, own in enumerate(here):
                self.options[u, family, : len(own)] = own
                self.options[u, family, len(own) :] = own[-1] if len(own) else 0

    def place(self, unit: int, option: int) -> tuple[int, float]:
        """Algorithm and position nearest to an option, which may be one that others beat."""
        family = int(self._family[unit][option])
        size = int(self.sizes[unit, family])
        at = int(np.argmin(np.abs(self.options[unit, family, :size] - option)))
        return family, -1.0 + 2.0 * at / max(size - 1, 1)


def order_of(problem: Problem, space: Space) -> list[int]:
    """Units as a walk visits them: before each layer its channel group and the tensors that it reads, then what is left."""
    tensors: dict[str, list[int]] = {}
    for u, unit in enumerate(problem.units):
        if unit.kind == "activation":
            for name in unit.layers:
                tensors.setdefault(name, []).append(u)
    found: dict[int, None] = {}
    for u, unit in enumerate(problem.units):
        if unit.kind == "layer":
            before = [space.owner[u]] if u in space.owner else []
            found.update(dict.fromkeys([*before, *tensors.get(unit.name, []), u]))
    return [*found, *(u for u in range(len(problem.units)) if u not in found)]


class Walk:
    """Episodes side by side: `observe`, then `act`, once for each unit of `order`; `choices` [episodes, units] is what they made."""

    def __init__(self, situation: Situation, menus: Menus, order: list[int], episodes: int) -> None:
        model, decoder = situation.model, situation.decoder
        self.situation, self.menus, self.order = situation, menus, order
        self._cost = model.table.costs(model.surrogate.mean)
        self._allowed = max(model.target(model.accepted_drop()), 1e-12)
        start = decoder.space.canonical(model.problem.start)
        mild = self._cost[np.arange(len(start)), start]
        self._mild, self._floor = mild, float(mild.sum())
        self.choices = np.tile(start, (episodes, 1))
        self.energy = np.full(episodes, decoder.rows.total(start))
        self.damage = np.full(episodes, self._floor)
        self._whole, self.step = float(self.energy[0]), 0
        self._last = np.zeros((episodes, 2))

    @property
    def finished(self) -> bool:
        """Whether every unit was decided."""
        return self.step >= len(self.order)

    def potential(self) -> NDArray[np.float64]:
        """Energy saved so far less the damage spent for it, [episodes]; zero at both ends of a walk."""
        if self.finished:
            return np.zeros(len(self.energy))
        worth: NDArray[np.float64] = (self._whole - self.energy) - SPENDING * np.minimum(self._spent(), WALL)
        return worth

    def mask(self) -> NDArray[np.bool_]:
        """Algorithms whose mildest option stays before the wall, [episodes, families]; "none" always does."""
        unit = self._unit()
        first = self._cost[unit, self.menus.options[unit, :, 0]]
        mask: NDArray[np.bool_] = (self.menus.sizes[unit] > 0) & (first[None, :] <= self._room(unit)[:, None])
        owner = self.situation.decoder.space.owner.get(unit)
        if owner is not None:  # the layers of a pruned group have no zeros of their own
            mask[self.situation.decoder.space.pruned[owner][self.choices[:, owner]]] = False
        mask[:, family_of(NONE)] = True
        return mask

    def observe(self) -> Array:
        """What is known of the unit beforehand, then energy saved, damage spent, the way that is left, and the last decision,
        [episodes, OBSERVATION].
        """
        fixed = np.broadcast_to(self.situation.features[self._unit()], (len(self.energy), STATIC))
        left = np.full(len(self.energy), 1.0 - self.step / len(self.order))
        dynamic = np.column_stack([self._whole - self.energy, np.minimum(self._spent(), BOUND), left, self._last])
        return np.concatenate([fixed, dynamic], axis=1).clip(-BOUND, BOUND).astype(np.float32)

    def act(self, position: NDArray[np.float64], family: NDArray[np.int64]) -> NDArray[np.float64]:
        """Decide for the unit: positions and algorithms [episodes]. Returns the positions that the wall left of them."""
        unit = self._unit()
        size = self.menus.sizes[unit, family]
        wanted = np.rint((np.clip(position, -1.0, 1.0) + 1.0) / 2.0 * (size - 1)).astype(np.int64)
        costs = self._cost[unit, self.menus.options[unit, family]]
        inside = (costs <= self._room(unit)[:, None]) & (np.arange(costs.shape[1])[None, :] < size[:, None])
        taken = np.minimum(wanted, np.maximum(inside.sum(axis=1) - 1, 0))
        chosen = self.menus.options[unit, family, taken]
        self._take(unit, chosen)
        done = -1.0 + 2.0 * taken / np.maximum(size - 1, 1)
        executed: NDArray[np.float64] = np.where(taken < wanted, done, position)
        self._last = np.column_stack([executed, family != family_of(NONE)])
        self.step += 1
        return executed

    def follow(self, option: int) -> None:
        """Decide for the unit as someone else did, whatever the wall."""
        unit = self._unit()
        family, position = self.menus.place(unit, option)
        self._take(unit, np.full(len(self.energy), option))
        self._last = np.tile([position, float(family != family_of(NONE))], (len(self.energy), 1))
        self.step += 1

    def _take(self, unit: int, chosen: NDArray[np.int64]) -> None:
        """Options [episodes] of a unit; energy and damage follow."""
        space, rows = self.situation.decoder.space, self.situation.decoder.rows
        for episode in np.flatnonzero(chosen != self.choices[:, unit]):
            before, after = self.choices[episode], self.choices[episode].copy()
            after[unit] = chosen[episode]
            after = space.canonical(after)
            self.energy[episode] += rows.difference(before, after)
            self.damage[episode] += float(self._cost[unit, after[unit]] - self._cost[unit, before[unit]])
            self.choices[episode] = after

    def _unit(self) -> int:
        return self.order[min(self.step, len(self.order) - 1)]

    def _spent(self) -> NDArray[np.float64]:
        """Damage so far beyond that of the start, as a share of what is allowed, [episodes]."""
        share: NDArray[np.float64] = (self.damage - self._floor) / self._allowed
        return share

    def _room(self, unit: int) -> NDArray[np.float64]:
        """The most damage that the unit may do, [episodes]."""
        room: NDArray[np.float64] = np.maximum(WALL * self._allowed - self.damage, 0.0) + self._mild[unit]
        return room


def terminal(situation: Situation, energy: NDArray[np.float64], damage: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rewards of plans by energy and whole damage, [plans], in [-1, 1]: energy saved, less a penalty where the drop that this damage
    leads to, smoothly, exceeds the limit.
    """
    model = situation.model
    limit = model.problem.limit_points
    over = np.maximum(model.drop_map.drop(damage) - limit, 0.0) / max(limit, 1e-9)
    result: NDArray[np.float64] = np.clip(1.0 - energy - PENALTY * over, -1.0, 1.0)
    return result


class PositionEnv(gymnasium.Env[Array, dict[str, Any]]):
    """`Walk` behind the gymnasium interface, one unit a step: {"position": [1], "family": int}; an absent algorithm is read as "none".

    The reward of a step is the change of the potential, and at the end what the plan brings by the model, so that the sum is `terminal`
    less the first potential, whatever the path. `info` has the mask of the next step and the exact energy so far.
    """

    def __init__(self, situation: Situation) -> None:
        problem, space = situation.model.problem, situation.decoder.space
        self.situation, self._menus, self._order = situation, Menus(situation), order_of(problem, space)
        self.observation_space = spaces.Box(-BOUND, BOUND, (OBSERVATION,), np.float32)
        self.action_space = spaces.Dict({"position": spaces.Box(-1.0, 1.0, (1,), np.float32), "family": spaces.Discrete(FAMILIES)})
        self._walk = Walk(situation, self._menus, self._order, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """The INT8 baseline, before the first unit."""
        super().reset(seed=seed)
        self._walk = Walk(self.situation, self._menus, self._order, 1)
        return self._walk.observe()[0], self._info()

    def step(self, action: dict[str, Any]) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One decision."""
        walk, before = self._walk, float(self._walk.potential()[0])
        family = int(action["family"]) if walk.mask()[0, int(action["family"])] else family_of(NONE)
        walk.act(np.asarray(action["position"], dtype=np.float64).reshape(1), np.array([family]))
        reward = float(walk.potential()[0]) - before
        if walk.finished:
            log_damage, _ = self.situation.model.surrogate.predict(walk.choices)
            reward += float(terminal(self.situation, walk.energy, np.exp(log_damage))[0])
        return walk.observe()[0], reward, walk.finished, False, self._info()

    @property
    def choices(self) -> Choices:
        """The plan so far."""
        plan: Choices = self._walk.choices[0].copy()
        return plan

    def _info(self) -> dict[str, Any]:
        return {"mask": self._walk.mask()[0], "energy": float(self._walk.energy[0])}
