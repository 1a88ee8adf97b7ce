"""The composite agent: a solver corrected by two agents that share features, learning from every finished trial.

The surrogate is refitted to the record and decoded by the solver. On top, DDPG corrects each unit's predicted damage
and sets a global margin, Rainbow (reading DDPG's features and action) names an algorithm family or leaves it to the
solver; the corrected problem is decoded by the same solver, so that every proposal lies on the constraint. Zero
actions are the solver's plan. Only a few units, those that the surrogate ensemble is least sure of, are perturbed at a
time, and the difference in reward is credited to them alone. Proposals of the solver, of the policy and of a local
search around the best plan compete by expected improvement; every fifth is the policy's regardless.

Source: composite continuous and discrete agents with shared actor features, Balaskas et al. (IEEE TETC 2024);
constraint-aware decoding of learned coefficients, SPDY (Frantar & Alistarh, ICML 2022), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.checkpoint import Checkpoint
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Played, Situation
from hwc_onnx.search.history import History, Record, recall
from hwc_onnx.search.local import expected_improvement, neighbours_of, unseen
from hwc_onnx.search.model import Model
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.replay import Transition
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable


@dataclass(frozen=True)
class CompositeConfig:
    """Switches and sizes; each switch off is an ablation."""

    policy: bool = True
    local: bool = True
    rollouts: int = 4
    perturbed: int = 4
    updates: int = 8
    policy_every: int = 5
    final_share: float = 0.2
    sigma: float = 0.35
    sigma_end: float = 0.05
    restart_every: int = 8


@dataclass(frozen=True)
class Episode:
    """One simulated rollout: what was done at the perturbed steps and the plan it decoded to."""

    transitions: tuple[Transition, ...]
    played: Played


@dataclass(frozen=True)
class Thought:
    """Everything the agent derived from the first `finished` trials before the next was chosen."""

    finished: int
    situation: Situation
    episodes: tuple[Episode, ...]
    reference: Played


class Composite:
    """The strategy. Its state after n trials is a function of the seed and those trials."""

    def __init__(
        self,
        problem: Problem,
        seed: int,
        trials: int,
        folder: Path | None = None,
        config: CompositeConfig | None = None,
    ) -> None:
        self.problem = problem
        self.config = config or CompositeConfig()
        self.space = Space(problem.units)
        self.table = DamageTable(problem)
        self.decoder = Decoder(problem, self.space)
        self.seed = seed
        self.trials = max(trials, 1)
        self._agents: Agents | None = None
        self._learned = History(self.space, problem.limit_points)
        self._thought: Thought | None = None
        self._checkpoint = (
            Checkpoint(folder / "agent.safetensors", f"seed {seed}, {trials} trials") if folder is not None else None
        )

    def propose(self, history: History) -> Proposal | None:
        """The unseen plan of largest expected improvement among solver, policy and local search."""
        self._catch_up(history)
        finished = len(history)
        rng = derived(self.seed, "composite-choice", finished)
        thought = self._think()
        best = history.best
        anchor = best.choices if best is not None else self.space.canonical(self.problem.start)
        final = history.evaluations >= (1.0 - self.config.final_share) * self.trials
        model = thought.situation.model
        pool: list[tuple[Choices, str]] = [(thought.situation.zero.choices, "rollout")]
        pool += [(plan, "rollout") for plan in self._safer(thought, anchor)]
        policy = [(thought.reference.choices, "policy")] if self.config.policy else []
        policy += [(episode.played.choices, "policy") for episode in thought.episodes]
        if not (final and best is not None and self.config.local):
            pool += policy
        if self.config.local and best is not None:
            pool += [(plan, "local_search") for plan in neighbours_of(self.decoder, model, anchor, rng)]
        origins = {plan.tobytes(): origin for plan, origin in reversed(pool)}
        fresh = unseen([plan for plan, _ in pool], history)
        if not fresh:
            fresh = unseen([self.space.random(rng) for _ in range(8)], history)
        if not fresh:
            return None
        energy = min(best.outcome.energy, 1.0) if best is not None else 1.0
        gain = expected_improvement(model, self.decoder, fresh, anchor, energy)
        if not final and finished % self.config.policy_every == 0:
            # the policy's turn, unless none of its plans could improve on the best
            turn = gain * np.array([origins.get(plan.tobytes()) == "policy" for plan in fresh])
            gain = turn if turn.max() > 0.0 else gain
        chosen = fresh[int(np.argmax(gain))]
        return Proposal(chosen, origins.get(chosen.tobytes(), "rollout"))

    def _safer(self, thought: Thought, anchor: Choices) -> list[Choices]:
        """The solver's plan for a smaller drop: what to try when plans at the limit keep being refused."""
        model = thought.situation.model
        plan = model.decode(
            self.decoder, 0.7 * model.accepted_drop(), [anchor], multiplier=thought.situation.multiplier
        )
        return [plan.choices]

    def _catch_up(self, history: History) -> None:
        """Learn from trials that this object has not seen: one in a running study, all of them in a resumed one."""
        if self._checkpoint is not None and not len(self._learned) and len(history):
            restored = self._checkpoint.load(history)
            if restored is not None:
                count, self._agents = restored
                for record in history.records[:count]:
                    self._learned.append(record)
        for record in history.records[len(self._learned) :]:
            if record.origin != "seed" and self.config.policy and record.counted and record.outcome.failure is None:
                # a replay knows the energies that were known then
                recall(self.problem, self._learned.records)
                thought = self._think()
                recall(self.problem, [*self._learned.records, record])
                self._learn(thought, record)
            self._thought = None
            self._learned.append(record)
            if self._checkpoint is not None and self._agents is not None and len(self._learned) % 10 == 0:
                self._checkpoint.save(self._learned, self._agents)
        recall(self.problem, history.records)

    def _think(self) -> Thought:
        """Fit the model to what was learned so far and roll the policy out (remembered until the next trial)."""
        finished = len(self._learned)
        if self._thought is not None and self._thought.finished == finished:
            return self._thought
        rng = derived(self.seed, "composite", finished)
        model = Model(self.problem, self.table, self._learned, rng)
        best = self._learned.best
        starts = [best.choices if best is not None else self.space.canonical(self.problem.start)]
        if finished % self.config.restart_every == 0:
            starts = [*starts, *middle_starts(self.space, self.problem)]
        progress = min(self._learned.evaluations / self.trials, 1.0)
        situation = Situation(model, self.decoder, starts, progress)
        episodes: list[Episode] = []
        reference = situation.zero
        if self.config.policy:
            agents = self._ready(situation)
            corrections, families = agents.mean_policy(situation)
            if np.abs(corrections).max() > 0.02 or np.any(families):
                reference = situation.decode(corrections, families)
            sigma = self.config.sigma * (self.config.sigma_end / self.config.sigma) ** min(progress / 0.6, 1.0)
            for _ in range(self.config.rollouts):
                episodes.append(self._rollout(agents, situation, reference, corrections, families, sigma, rng))
        self._thought = Thought(finished, situation, tuple(episodes), reference)
        return self._thought

    def _ready(self, situation: Situation) -> Agents:
        if self._agents is None:
            self._agents = Agents.for_situation(situation, self.seed)
        return self._agents

    def _rollout(
        self,
        agents: Agents,
        situation: Situation,
        reference: Played,
        corrections: NDArray[np.float32],
        families: NDArray[np.int64],
        sigma: float,
        rng: np.random.Generator,
    ) -> Episode:
        """The policy with a few uncertain units perturbed, decoded and credited by difference to the reference."""
        units = self._uncertain(situation, rng)
        moved, named = agents.explore(situation, corrections, families, units, sigma, rng)
        played = situation.decode(moved, named)
        target = situation.gain(played) - situation.gain(reference)
        return Episode(agents.transitions(situation, moved, named, units, target), played)

    def _uncertain(self, situation: Situation, rng: np.random.Generator) -> NDArray[np.int64]:
        """Units to perturb, drawn by how unsure the ensemble is about a share of the damage; sometimes the margin."""
        surrogate = situation.model.surrogate
        share = surrogate.contributions(situation.zero.choices[None, :])[0]
        weight = surrogate.doubt() * np.sqrt(share / max(share.sum(), 1e-12)) + 1e-3
        count = min(self.config.perturbed, len(weight))
        units = rng.choice(len(weight), size=count, replace=False, p=weight / weight.sum())
        return np.append(units, len(weight)) if rng.random() < 0.3 else units

    def _learn(self, thought: Thought, record: Record) -> None:
        """Store simulated and real transitions, then update both agents."""
        agents = self._ready(thought.situation)
        for episode in thought.episodes:
            agents.store_simulated(episode.transitions)
        model = thought.situation.model
        outcome = record.outcome
        smooth = 0.5 * (float(model.drop_map.drop(np.array([outcome.damage]))[0]) + outcome.drop_points)
        value = float(model.reward(np.array([outcome.energy]), np.array([smooth]))[0])
        real = Played(record.choices, outcome.energy, smooth, value)
        target = thought.situation.gain(real) - thought.situation.gain(thought.reference)
        before = self._learned.best
        elite = outcome.accepted(self.problem.limit_points) and (
            before is None or outcome.energy < before.outcome.energy
        )
        known = next((e for e in thought.episodes if np.array_equal(e.played.choices, record.choices)), None)
        rows = known.transitions if known is not None else agents.inferred(thought.situation, record.choices)
        agents.store_real(rows, float(np.clip(target, -1.0, 1.0)), elite)
        agents.train(self.config.updates, derived(self.seed, "composite-train", thought.finished))


def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Composite:
    """The default strategy of this problem."""
    return Composite(problem, seed, trials, folder)
