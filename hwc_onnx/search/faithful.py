"""The agent as published: raw actions, real episodes only.

One episode is one plan. At each layer DDPG gives pruning ratio, weight width and activation width, Rainbow (reading DDPG's
features and action) the pruning algorithm; after the last layer the plan is measured, and its reward is every step's
return. No surrogate, no solver, no seeds: what the composite agent is compared with.

Source: Balaskas et al., "Hardware-aware DNN compression via diverse pruning and mixed-precision quantization" (IEEE TETC
2024). Its reward table, ranges and episode count could not be read, so this is inspired by it: observation, copied terminal
reward, warm-up and truncated normal exploration follow AMC (He et al., ECCV 2018, section 3 and 4), whose 800 episodes are
shortened to the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwc_onnx.search.ddpg import DDPG, DDPGConfig, truncated_normal
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.rainbow import Rainbow, RainbowConfig
from hwc_onnx.search.raw_walk import ACTIONS, OBSERVATION, RawWalk
from hwc_onnx.search.replay import Replay, Step, n_step
from hwc_onnx.search.seeds import derived
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal

WARM_UP = 0.1
"""Share of the budget with uniform random actions."""
SIGMA, SIGMA_END = 0.5, 0.05
DECAYED = 0.6
"""Share of the budget after which exploration has come down to SIGMA_END."""
UPDATES, MOST_UPDATES = 4, 200
"""Training steps for each layer of an episode, and at most for the episode."""
BATCH = 64
PENALTY = 1.5


@dataclass(frozen=True)
class Episode:
    """The steps of a plan, without their return."""

    steps: tuple[Step, ...]
    choices: Choices


class Faithful:
    """The strategy. A resumed study plays the record again, so its networks are the same."""

    def __init__(self, problem: Problem, seed: int, trials: int) -> None:
        torch.set_num_threads(1)  # the networks are tiny, and evaluations need the cores
        self.problem = problem
        self.seed, self.trials = seed, max(trials, 1)
        space = Space(problem.units)
        self.walk = RawWalk(problem, Decoder(problem, space))
        generator = torch.Generator().manual_seed(seed)
        families = len(self.walk.families)
        self.ddpg = DDPG(OBSERVATION, ACTIONS, families, generator, DDPGConfig(imitation=0.0, restraint=0.0))
        inputs = self.ddpg.config.hidden + ACTIONS
        self.rainbow = Rainbow(inputs, families, generator, RainbowConfig(margin_weight=0.0))
        self.replay = Replay()
        self._learned = 0
        self._episode: tuple[int, Episode] | None = None

    def propose(self, history: History) -> Proposal | None:
        """The plan of the next episode."""
        if not self.walk.layers:
            return None
        for record in history.records[self._learned :]:
            if record.origin == "policy":
                episode = self._played(self._learned)
                if np.array_equal(episode.choices, record.choices) and record.outcome.failure is None:
                    self._learn(episode, self.reward(record), self._learned)
            self._learned += 1
        return Proposal(self._played(len(history)).choices, "policy")

    def reward(self, record: Record) -> float:
        """Energy saved where the drop is allowed, less a penalty beyond; in [-1, 1]."""
        outcome, limit = record.outcome, self.problem.limit_points
        over = max(outcome.excess(limit), *outcome.limits.values(), 0.0) / max(limit, 1e-9)
        return float(np.clip(1.0 - outcome.energy - PENALTY * over, -1.0, 1.0))

    def _played(self, finished: int) -> Episode:
        """The episode after `finished` trials; it depends on these, on the seed and on nothing else."""
        if self._episode is not None and self._episode[0] == finished:
            return self._episode[1]
        rng = derived(self.seed, "faithful", finished)
        progress = finished / self.trials
        sigma = SIGMA * (SIGMA_END / SIGMA) ** min(progress / DECAYED, 1.0)
        self.rainbow.resample(torch.Generator().manual_seed(int(rng.integers(2**62))))
        walked, steps = self.walk.start(), []
        while not walked.finished:
            observation, mask = walked.observe(), walked.mask
            mean, features = self.ddpg.act(observation[None, :])
            if progress < WARM_UP:
                action = rng.uniform(-1.0, 1.0, ACTIONS).astype(np.float32)
                family = int(rng.choice(np.flatnonzero(mask)))
            else:
                action = truncated_normal(mean, sigma, rng)[0]
                inputs = torch.cat([features, torch.as_tensor(action[None, :])], dim=1)
                family = int(self.rainbow.choose(inputs, torch.as_tensor(mask[None, :]))[0])
            walked.act(action, family)
            steps.append(Step(observation, mask, action, family, 0.0))
        self.rainbow.silence()
        episode = Episode(tuple(steps), walked.choices)
        self._episode = finished, episode
        return episode

    def _learn(self, episode: Episode, reward: float, finished: int) -> None:
        """Store an episode with its reward as the return of each step, and train."""
        *before, last = episode.steps
        rewarded = [*before, Step(last.observation, last.mask, last.action, last.family, reward)]
        for transition in n_step(rewarded, gamma=1.0, steps=None):
            self.replay.add(transition)
        rng = derived(self.seed, "faithful-train", finished)
        for _ in range(min(UPDATES * len(episode.steps), MOST_UPDATES)):
            self._update(rng)

    def _update(self, rng: np.random.Generator) -> None:
        batch = self.replay.sample(BATCH, rng)
        observation = torch.as_tensor(batch.observation)
        mask = torch.as_tensor(batch.mask)
        with torch.no_grad():
            action, features = self.ddpg.actor(observation)
            executed = torch.cat([features, torch.as_tensor(batch.action)], dim=1)
            preferred = self.rainbow.choose(torch.cat([features, action], dim=1), mask)
        # returns run to the end of the episode: what follows counts for nothing
        surprise: NDArray[np.float32] = self.rainbow.update(batch, executed, executed)
        errors = self.ddpg.update(batch, preferred, preferred)
        self.replay.reprioritise(batch.position, surprise + errors)


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Faithful:
    """The strategy of this problem."""
    return Faithful(problem, seed, trials)
