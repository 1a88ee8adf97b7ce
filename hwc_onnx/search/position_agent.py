"""The two agents alone at the wheel: algorithms and positions in menus, practised on the surrogate, without a solver's decode.

At each unit DDPG gives one position for each algorithm, Rainbow (reading DDPG's features and all positions) names the algorithm, and the
option at that position is the decision (positions.py). All finished trials of the study are lessons, whoever proposed them; between
measurements the agents practise on walks that the surrogate, refitted each time, judges. Returns run to the end of the walk, less the
potential of where they begin. What is measured next is the walk of 128 that promises most under doubt, every fifth time a noisy walk as it is, and
in the last fifth of the budget the best step of a local search.

Source: shared features of both agents, Balaskas et al. (IEEE TETC 2024); P-DQN (Xiong et al., arXiv 1810.06394); imitation of the best
episodes, Oh et al. (ICML 2018); practice on a learned model, Dyna (Sutton, SIGART Bulletin 2, 1991).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.ddpg import DDPGConfig, truncated_normal
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.features import FAMILIES
from hwc_onnx.search.history import History, Record, recall
from hwc_onnx.search.local import expected_improvement, neighbours_of, unseen
from hwc_onnx.search.model import Model
from hwc_onnx.search.positions import OBSERVATION, Menus, Walk, order_of, terminal
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.replay import Transition
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable

SIMULATED, CONSIDERED = 32, 128
"""Walks that are learned from after each trial, and that the next plan is chosen from."""
NOISY_EVERY = 5
LOCAL_FROM = 0.8
SIGMA, SIGMA_END, DECAYED = 0.35, 0.05, 0.6
EPSILON, EPSILON_UNTIL = 0.05, 1.0 / 3.0
"""Share of algorithms that are drawn at random, in this first share of the budget."""
CLONING, UPDATES = 150, 24
"""Training steps on the first trial, and on each after it."""
OPTIMISM = 0.5
"""Standard deviations of damage that a walk is given credit for when the next plan is chosen."""


@dataclass(frozen=True)
class Decided:
    """One step of walks side by side: arrays [episodes, ...], the potential before it."""

    seen: NDArray[np.float32]
    mask: NDArray[np.bool_]
    action: NDArray[np.float32]
    family: NDArray[np.int64]
    potential: NDArray[np.float64]


class PositionAgent:
    """The strategy. A resumed study plays the record again, so its networks are the same."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        self.problem, self.seed, self.trials = problem, seed, max(trials, 1)
        self.space = Space(problem.units)
        self.table = DamageTable(problem)
        self.decoder = Decoder(problem, self.space)
        self.order = order_of(problem, self.space)
        ddpg = DDPGConfig(per_family=True, restraint=0.0)
        self.agents = Agents(seed, OBSERVATION, FAMILIES, ddpg, actions=FAMILIES)
        self._learned = History(self.space, problem.limit_points)
        self._taught = False
        self._now: Situation | None = None
        self._menus: Menus | None = None

    def propose(self, history: History) -> Proposal | None:
        """The next plan, and who made it: "policy" or "local_search"."""
        self._catch_up(history)
        rng = derived(self.seed, "positions-choice", len(history))
        situation, best = self._situation(), history.best
        progress = history.evaluations / self.trials
        plans, origin = self._walked(situation, CONSIDERED, progress, rng).choices, "policy"
        if history.evaluations % NOISY_EVERY == 0:
            plans = plans[:1]
        elif progress >= LOCAL_FROM and best is not None:
            plans, origin = np.array(neighbours_of(self.decoder, situation.model, best.choices, rng)), "local_search"
        fresh = unseen(list(plans), history) or unseen([self.space.random(rng) for _ in range(8)], history)
        if not fresh:
            return None
        if origin == "policy":
            value = self._promise(situation, np.array(fresh))
        else:
            assert best is not None
            value = expected_improvement(situation.model, self.decoder, fresh, best.choices, min(best.outcome.energy, 1.0))
        chosen = fresh[int(np.argmax(value))]
        return Proposal(chosen, origin, situation.model.expected(chosen) | self.agents.curves)

    def _promise(self, situation: Situation, plans: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rewards expected of plans, were their damage lower by `OPTIMISM` deviations, [plans]."""
        energy = np.array([self.decoder.rows.total(plan) for plan in plans])
        log_damage, doubt = situation.model.surrogate.predict(plans)
        return terminal(situation, energy, np.exp(log_damage - OPTIMISM * doubt))

    def _catch_up(self, history: History) -> None:
        for record in history.records[len(self._learned) :]:
            self._learned.append(record)
            recall(self.problem, self._learned.records)
            self._now = None
            if record.counted and record.outcome.failure is None:
                self._learn(record)
        recall(self.problem, history.records)

    def _situation(self) -> Situation:
        """The model fitted to what was learned so far, and what the agents see of it."""
        if self._now is None:
            finished, best = len(self._learned), self._learned.best
            model = Model(self.problem, self.table, self._learned, derived(self.seed, "positions", finished))
            starts = middle_starts(self.space, self.problem) if best is None else [best.choices]
            progress = min(self._learned.evaluations / self.trials, 1.0)
            self._now = Situation(model, self.decoder, starts, progress, finished)
            self._menus = self._menus or Menus(self._now)
        return self._now

    def _walk(self, situation: Situation, episodes: int) -> Walk:
        assert self._menus is not None
        return Walk(situation, self._menus, self.order, episodes)

    def _learn(self, record: Record) -> None:
        """Store the trial, what it suggests at first, and simulated walks; then train both agents."""
        rng, situation = derived(self.seed, "positions-train", len(self._learned)), self._situation()
        first, self._taught = not self._taught, True
        if first:  # the solver's plan by the table is the first lesson, before any of its kind is measured
            solved = situation.zero
            reward = terminal(situation, np.array([solved.energy]), np.exp([solved.log_damage]))
            for row in self._followed(situation, solved.choices, float(reward[0])):
                self.agents.real.add(replace(row, elite=True))
        outcome = record.outcome
        reward = terminal(situation, np.array([outcome.energy]), np.array([max(outcome.damage, 1e-7)]))
        for row in self._followed(situation, record.choices, float(reward[0])):
            self.agents.real.add(replace(row, elite=self._learned.best is record))
        progress = self._learned.evaluations / self.trials
        steps: list[Decided] = []
        walk = self._walked(situation, SIMULATED, progress, rng, steps)
        member = int(rng.integers(1, len(situation.model.surrogate.members)))
        damage = np.exp(situation.model.surrogate.line(walk.choices, member))
        self.agents.store_simulated(_returns(steps, terminal(situation, walk.energy, damage)))
        self.agents.train(CLONING if first else UPDATES, rng)

    def _walked(
        self,
        situation: Situation,
        episodes: int,
        progress: float,
        rng: np.random.Generator,
        steps: list[Decided] | None = None,
    ) -> Walk:
        """Noisy walks to their end; what they decided is added to `steps`."""
        sigma = SIGMA * (SIGMA_END / SIGMA) ** min(progress / DECAYED, 1.0)
        rainbow, ddpg = self.agents.rainbow, self.agents.ddpg
        rainbow.resample(torch.Generator().manual_seed(int(rng.integers(2**62))))
        walk = self._walk(situation, episodes)
        while not walk.finished:
            seen, mask, potential = walk.observe(), walk.mask(), walk.potential()
            action, features = ddpg.act(seen)
            action = truncated_normal(action, sigma, rng)
            family = rainbow.choose(torch.cat([features, torch.as_tensor(action)], dim=1), torch.as_tensor(mask)).numpy()
            if progress < EPSILON_UNTIL:
                drawn = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
                family = np.where(rng.random(episodes) < EPSILON, drawn, family)
            position = action[np.arange(episodes), family].astype(np.float64)
            action[np.arange(episodes), family] = walk.act(position, family)
            if steps is not None:
                steps.append(Decided(seen, mask, action, family, potential))
        rainbow.silence()
        return walk

    def _followed(self, situation: Situation, choices: Choices, reward: float) -> list[Transition]:
        """The decisions that lead to a plan of someone's, with their returns."""
        assert self._menus is not None
        walk = self._walk(situation, 1)
        steps: list[Decided] = []
        for unit in self.order:
            seen, potential = walk.observe(), walk.potential()
            family, position = self._menus.place(unit, int(choices[unit]))
            action, _ = self.agents.ddpg.act(seen)
            mask = walk.mask()
            mask[0, family] = True
            action[0, family] = position
            steps.append(Decided(seen, mask, action, np.array([family]), potential))
            walk.follow(int(choices[unit]))
        return _returns(steps, np.array([reward]))


def _returns(steps: list[Decided], reward: NDArray[np.float64]) -> list[Transition]:
    """Each decision with what the rest of its walk brought: the reward [episodes] less the potential before the decision."""
    rows = []
    for step in steps:
        target = np.clip(reward - step.potential, -1.0, 1.0)
        for e in range(len(reward)):
            rows.append(
                Transition(step.seen[e], step.action[e], int(step.family[e]), float(target[e]), step.seen[e], step.mask[e], 0.0)
            )
    return rows


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> PositionAgent:
    """The strategy of this problem."""
    return PositionAgent(problem, seed, trials)
