"""The composite agent: a solver corrected by two agents that share features, learning from every finished trial.

The surrogate is refitted to the record and decoded by the solver. On top, DDPG corrects each unit's predicted damage
and sets a global margin, Rainbow (reading DDPG's features and action) names an algorithm family or leaves it to the
solver; the corrected problem is decoded by the same solver, so that every proposal lies on the constraint. Zero
actions are the solver's plan. Episodes are simulated on the surrogate (practice.py); only a few steps, those that the
ensemble is least sure of, are explored at a time, and the difference in reward is credited to them alone. Plans of the
solver, of the policy and of a local search around the best plan compete by expected improvement, which the policy's
opinion about damages enters with the weight that it has earned by predicting measured damages.

Source: composite continuous and discrete agents with shared actor features, Balaskas et al. (IEEE TETC 2024);
constraint-aware decoding of learned coefficients, SPDY (Frantar & Alistarh, ICML 2022), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.checkpoint import Checkpoint, search_of
from hwc_onnx.search.ddpg import DDPGConfig
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Played, Situation
from hwc_onnx.search.history import History, Record, recall
from hwc_onnx.search.local import Price, expected_gain, expected_improvement, neighbours_of, unseen
from hwc_onnx.search.model import Model
from hwc_onnx.search.policy import Policy
from hwc_onnx.search.practice import Practice, believed, practise, weighed
from hwc_onnx.search.problem import Choices, Problem
from hwc_onnx.search.seeds import derived, middle_starts
from hwc_onnx.search.space import Space
from hwc_onnx.search.strategy import Proposal
from hwc_onnx.search.surrogate import DamageTable


@dataclass(frozen=True)
class CompositeConfig:
    """Switches and sizes; each switch off is an ablation.

    `gaining` is the share of trials that are chosen by what they gain in energy and damage together, up to the share `gaining_until` of the
    budget; the others are chosen by energy and acceptance.
    """

    policy: bool = True
    corrects: bool = True
    names: bool = True
    local: bool = True
    imitation: float = DDPGConfig().imitation
    rollouts: int = 32
    decoded: int = 4
    explored: int = 4
    updates: int = 8
    sigma: float = 0.35
    sigma_end: float = 0.05
    restart_every: int = 8
    gaining: float = 0.66
    gaining_until: float = 0.75


@dataclass(frozen=True)
class Thought:
    """Everything the agent derived from the first `finished` trials before the next was chosen."""

    finished: int
    situation: Situation
    practice: Practice | None


class Composite:
    """The strategy. Its state after n trials is a function of the seed and those trials."""

    def __init__(
        self,
        problem: Problem,
        seed: int,
        trials: int,
        folder: Path | None = None,
        config: CompositeConfig | None = None,
        start: Policy | None = None,
    ) -> None:
        self.problem = problem
        self.config = config or CompositeConfig()
        self.space = Space(problem.units)
        self.table = DamageTable(problem)
        self.decoder = Decoder(problem, self.space)
        self.seed = seed
        self.trials = max(trials, 1)
        self._start = start
        self._agents: Agents | None = None
        self._learned = History(self.space, problem.limit_points)
        self._thought: Thought | None = None
        depends = search_of(seed, trials, None if start is None else start.digest)
        self._checkpoint = Checkpoint(folder / "agent.safetensors", depends) if folder is not None else None

    def propose(self, history: History) -> Proposal | None:
        """The unseen plan that is expected to bring most, of those of solver, policy and local search: in energy and damage together, or
        in energy if it is accepted.
        """
        self._catch_up(history)
        rng = derived(self.seed, "composite-choice", len(history))
        thought = self._think()
        model, best = thought.situation.model, history.best
        price = Price(thought.situation.exchange, float(np.log(model.borne())))
        leader = price.leader(history)
        pool = self._pool(thought, best, leader, rng)
        origins = {plan.tobytes(): origin for plan, origin in reversed(pool)}
        fresh = unseen([plan for plan, _ in pool], history)
        if not fresh:
            fresh = unseen([self.space.random(rng) for _ in range(8)], history)
        if not fresh:
            return None
        value: NDArray[np.float64] | None = None
        early = self._learned.evaluations < self.config.gaining_until * self.trials
        if leader is not None and early and rng.random() < self.config.gaining:
            gain = self._gain(thought, fresh, leader, price)
            value = gain if gain.max() > 0.0 else None
        gaining = value is not None
        chosen = fresh[int(np.argmax(self._improvement(thought, fresh, best) if value is None else value))]
        return Proposal(chosen, origins.get(chosen.tobytes(), "rollout"), self._learning(model, chosen), entire=gaining)

    def _pool(
        self, thought: Thought, best: Record | None, leader: Record | None, rng: np.random.Generator
    ) -> list[tuple[Choices, str]]:
        """Plans to choose from, with who made them: the solver for the accepted drop, less, and the limit itself, the policy, and the local
        search around the best accepted plan and around the leader in energy and damage.
        """
        anchor, model = self._anchor(best), thought.situation.model
        drops = (0.7 * model.accepted_drop(), self.problem.limit_points)  # less: what to try when plans at the limit keep being refused
        pool = [(thought.situation.zero.choices, "rollout")]
        pool += [(self._solved(model, drop, anchor), "rollout") for drop in drops]
        pool += [(plan, "policy") for plan in self._policy_plans(thought, anchor)]
        if self.config.local and best is not None:
            around = [best] if leader is None or leader is best else [best, leader]
            for record in around:
                pool += [(plan, "local_search") for plan in neighbours_of(self.decoder, model, record.choices, rng)]
        return pool

    def _anchor(self, best: Record | None) -> Choices:
        """Where plans are improved from."""
        return best.choices if best is not None else self.space.canonical(self.problem.start)

    def _learning(self, model: Model, choices: Choices) -> dict[str, float]:
        """What is expected of a plan before it is measured, and how the agents' learning stands."""
        found = model.expected(choices)
        if self._agents is not None:
            found |= {"policy_weight": believed(self._agents.evidence), **self._agents.curves}
        return found

    def _policy_plans(self, thought: Thought, anchor: Choices) -> list[Choices]:
        """The policy's own plan, its best episodes' and the solver's under the damages that the policy believes in."""
        practice = thought.practice
        if practice is None:
            return []
        plans = [practice.reference.choices, *(episode.played.choices for episode in practice.episodes)]
        if practice.opinion is not None:
            plans.append(self._solved(practice.opinion, practice.opinion.accepted_drop(), anchor))
        return plans

    def _improvement(self, thought: Thought, plans: list[Choices], best: Record | None) -> NDArray[np.float64]:
        """Expected improvement of plans under the model, mixed with that under the policy's opinion as far as it has
        proved right, [plans].
        """
        anchor, energy = self._anchor(best), 1.0 if best is None else min(best.outcome.energy, 1.0)
        return self._mixed(thought, lambda model: expected_improvement(model, self.decoder, plans, anchor, energy))

    def _gain(self, thought: Thought, plans: list[Choices], leader: Record, price: Price) -> NDArray[np.float64]:
        """What plans are expected to gain on the best measured one in energy and damage together, [plans], mixed as `_improvement`."""
        best = price.total(leader.outcome.energy, leader.outcome.damage)

        def under(model: Model) -> NDArray[np.float64]:
            return expected_gain(model, self.decoder, plans, leader.choices, price, best)

        return self._mixed(thought, under)

    def _mixed(self, thought: Thought, under: Callable[[Model], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A value of plans under the model and under the policy's opinion, as far as that has proved right, [plans]."""
        opinion = thought.practice.opinion if thought.practice is not None else None
        value = under(thought.situation.model)
        if opinion is None or self._agents is None:
            return value
        weight = believed(self._agents.evidence)
        return (1.0 - weight) * value + weight * under(opinion)

    def _solved(self, model: Model, drop: float, anchor: Choices) -> Choices:
        return model.decode(self.decoder, drop, [anchor]).choices

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
        situation = Situation(model, self.decoder, starts, progress, finished)
        practice = None
        if self.config.policy:
            sigma = self.config.sigma * (self.config.sigma_end / self.config.sigma) ** min(progress / 0.6, 1.0)
            practice = practise(
                self._ready(),
                situation,
                rng,
                rollouts=self.config.rollouts,
                decoded=self.config.decoded,
                explored=self.config.explored,
                sigma=sigma,
            )
        self._thought = Thought(finished, situation, practice)
        return self._thought

    def _ready(self) -> Agents:
        if self._agents is None:
            ddpg = DDPGConfig(imitation=self.config.imitation)
            self._agents = Agents(self.seed, ddpg=ddpg, corrects=self.config.corrects, names=self.config.names)
            if self._start is not None:
                self._agents.take_up(self._start.arrays)
        return self._agents

    def _learn(self, thought: Thought, record: Record) -> None:
        """Weigh the policy's opinion, store simulated and real decisions, then update both agents."""
        agents, situation, practice = self._ready(), thought.situation, thought.practice
        assert practice is not None
        outcome = record.outcome
        agents.evidence = weighed(agents.evidence, situation.model, practice.opinion, record.choices, outcome.damage)
        agents.store_simulated(practice.transitions)
        measured = Played(record.choices, outcome.energy, float(np.log(max(outcome.damage, 1e-7))))
        before = self._learned.best
        better = outcome.accepted(self.problem.limit_points) and (
            before is None or outcome.energy < before.outcome.energy
        )
        known = next((e for e in practice.episodes if np.array_equal(e.played.choices, record.choices)), None)
        rows = known.transitions if known is not None else agents.inferred(situation, record.choices)
        target = situation.gain(measured) - situation.gain(practice.reference if known is not None else situation.zero)
        agents.store_real(rows, float(np.clip(target, -1.0, 1.0)), elite=better and known is not None)
        agents.train(self.config.updates, derived(self.seed, "composite-train", thought.finished))


def make(problem: Problem, seed: int, trials: int, folder: Path | None, policy: Policy | None = None) -> Composite:
    """The default strategy of this problem; its agents start as `policy` or from scratch."""
    return Composite(problem, seed, trials, folder, start=policy)
