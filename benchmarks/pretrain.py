"""Trains the policy that the package ships, on made-up networks whose true damage is known.

    python benchmarks/pretrain.py --out hwc_onnx/search/policy.safetensors

Each problem has its own depth, damage curves, errors of the damage table, pairwise interactions, accelerator (what widths,
zeros and channels save, how energy is shared out) and drop limit. A few trials are made up, the surrogate is fitted to
them, and episodes are decoded around the solver's plan. Their reward is by the *true* outcome: energy saved plus true
damage spared at the solver's rate. What is learned is how to correct an early surrogate.

The first round explores around the solver's own plan, later rounds around the policy of the round before; all decisions
are kept, and both agents learn from uniform draws of them (DDPG and Rainbow are off-policy). The critics learn alone first.

Problems with other seeds are left out. There the policy's own plan is compared with the solver's, both decoded exactly:
printed are the mean true advantage (in percent of the INT8 baseline's energy, damage at the solver's rate) and how often
the policy's plan is better, by the number of trials that the surrogate was fitted to.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.ddpg import DDPGConfig
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.features import FAMILIES, SOLVER, dynamic_features
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.model import Model
from hwc_onnx.search.policy import save_policy
from hwc_onnx.search.practice import decisions, uncertain
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.replay import Batch, Transition
from hwc_onnx.search.seeds import seed_plan
from hwc_onnx.search.simulation import Simulation
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem

FINE = ("magnitude", "sensitivity", "wanda", "obs")
COARSE = ("l1", "l2", "fpgm", "reconstruct", "gram")
BATCH = 1024
STAGES = 5
LEFT_OUT = 500_000
"""First seed of the problems that are not trained on."""

Walked = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]


class GeneratedProblem(SyntheticProblem):
    """A made-up network on a made-up accelerator; everything follows from the seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 77])
        self.fine = tuple((str(name), float(rng.uniform(0.9, 1.8))) for name in rng.permutation(FINE)[:2])
        self.coarse = tuple((str(name), float(rng.uniform(0.9, 1.5))) for name in rng.permutation(COARSE)[:2])
        self.arithmetic = (float(rng.uniform(0.0, 0.8)), float(rng.choice([0.0, 0.5, 1.0, 1.5])))
        self.memory = (float(rng.lognormal(0.0, 0.7)), float(rng.lognormal(0.2, 0.7)))
        self.skipping = bool(rng.random() < 0.6)
        super().__init__(
            layers=int(rng.integers(5, 33)),
            images=int(rng.choice([512, 1024, 2048])),
            seed=seed,
            limit_points=float(rng.choice([0.3, 0.5, 1.0, 1.0, 2.0])),
            interaction=float(rng.choice([0.0, 0.3, 0.6, 1.0, 1.5])),
            table_error=float(rng.uniform(0.3, 0.9)),
        )
        # a table is wrong in its curvature and for single options too
        bent = rng.normal(0.0, 0.12, len(self.units))
        single = float(rng.uniform(0.0, 0.3))
        self._truth = [
            truth * (np.maximum(truth, 1e-9) / max(float(truth.max()), 1e-9)) ** bend * rng.lognormal(0.0, single, len(truth))
            for truth, bend in zip(self._truth, bent, strict=True)
        ]


class Course:
    """A made-up record that grows: seeds, then the solver's plans with a few units moved."""

    def __init__(self, problem: SyntheticProblem, rng: np.random.Generator) -> None:
        self.problem, self.rng = problem, rng
        self.table = DamageTable(problem)
        self.decoder = Decoder(problem, problem.space)
        self.history = History(problem.space, problem.limit_points)
        while (plan := seed_plan(problem, problem.space, self.decoder, self.table, self.history)) is not None:
            self._measure(plan)

    def situation(self) -> Situation:
        """What the agents see after the trials so far."""
        model = Model(self.problem, self.table, self.history, self.rng)
        best = self.history.best
        start = self.problem.start if best is None else best.choices
        return Situation(model, self.decoder, [start], float(self.rng.random()), len(self.history))

    def grow(self, plan: Choices, trials: int) -> None:
        """Measure plans around this one."""
        for number in range(trials):
            moved = plan.copy()
            for u in self.rng.choice(len(plan), size=min(int(self.rng.integers(0, 6)), len(plan)), replace=False):
                step = int(self.rng.choice([-2, -1, 1, 2]))
                moved[u] = np.clip(moved[u] + step, 0, self.problem.space.sizes[u] - 1)
            self._measure(self.problem.space.canonical(moved if number else plan))

    def _measure(self, plan: Choices) -> None:
        record = Record(len(self.history), plan, self.problem.evaluate(plan), "seed", True, 0.0)
        self.history.append(record)


def scattered(situation: Situation, where: NDArray[np.bool_], rng: np.random.Generator) -> Walked:
    """Episodes with uniform corrections and families at the explored steps, and the solver's choice elsewhere."""
    corrections = np.where(where, rng.uniform(-1.0, 1.0, where.shape), 0.0).astype(np.float32)
    keys = np.where(situation.masks, rng.random((*where.shape, FAMILIES)), -1.0)
    named = np.where(where & (rng.random(where.shape) < 0.5), keys.argmax(axis=2), SOLVER)
    steps = range(where.shape[1])
    seen = [situation.observation(step, dynamic_features(corrections, named, step)) for step in steps]
    return corrections, named, np.stack(seen, axis=1)


def practise(
    agents: Agents | None, situation: Situation, problem: SyntheticProblem, episodes: int, rng: np.random.Generator
) -> Iterator[Transition]:
    """Decisions around the present policy (None: around the solver's plan), credited by what they truly do."""
    where = uncertain(situation, rng, episodes, int(rng.integers(3, 7)))
    where = np.concatenate([np.zeros((1, where.shape[1]), dtype=np.bool_), where])
    walked = scattered(situation, where, rng) if agents is None else agents.walk(situation, where, 0.4, rng)
    moved, named, seen = walked
    simulation = Simulation(situation)
    plans = simulation.decode(moved, named)
    energy, _ = simulation.outcome(plans, 0)
    credit = simulation.credit(energy, truth(problem, plans))
    for i in range(1, len(plans)):
        yield from decisions(situation, moved[i], named[i], seen[i], where[i], float(credit[i - 1]))


def truth(problem: SyntheticProblem, plans: NDArray[np.int64]) -> NDArray[np.float64]:
    """True log damages, [plans]."""
    return np.log([max(problem.true_damage(plan), 1e-7) for plan in plans])


def courses(first: int, count: int) -> Iterator[tuple[int, Situation, SyntheticProblem, np.random.Generator]]:
    """Problems with growing records: stage, situation, problem and a generator for what is drawn there."""
    for seed in range(first, first + count):
        problem, rng = GeneratedProblem(seed), np.random.default_rng([seed, 78])
        course = Course(problem, rng)
        for stage in range(STAGES):
            situation = course.situation()
            yield stage, situation, problem, rng
            course.grow(situation.zero.choices, int(rng.integers(3, 12)))


def examine(agents: Agents, situations: list[tuple[int, Situation, SyntheticProblem]]) -> str:
    """The policy's true advantage over the solver on these situations, in words."""
    gained: list[list[float]] = [[] for _ in range(STAGES)]
    for stage, situation, problem in situations:
        played = situation.decode(*agents.mean_policy(situation))
        damage = truth(problem, np.array([situation.zero.choices, played.choices]))
        gained[stage].append(situation.zero.energy - played.energy + situation.exchange * (damage[0] - damage[1]))
    every = np.concatenate([np.array(row) for row in gained])
    stages = ", ".join(f"{100 * np.mean(row):+.2f}" for row in gained)
    return (
        f"advantage {100 * every.mean():+.3f} % (standard error {100 * every.std() / np.sqrt(len(every)):.3f}), better in"
        f" {np.mean(every > 0):.0%} and worse in {np.mean(every < 0):.0%} of {len(every)}; by stage {stages}"
    )


class Memory:
    """All decisions as arrays (observation, action, family, target, mask), drawn uniformly."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.generic], ...]] = []
        self._whole: tuple[NDArray[Any], ...] = ()

    def add(self, rows: Sequence[Transition]) -> None:
        """Keep the decisions of one situation."""
        self._parts.append(
            (
                np.stack([row.observation for row in rows]),
                np.stack([row.action for row in rows]),
                np.array([row.family for row in rows], dtype=np.int64),
                np.array([row.target for row in rows], dtype=np.float32),
                np.stack([row.mask for row in rows]),
            )
        )

    def gather(self) -> int:
        """Make what was added ready to be drawn; returns how many decisions there are."""
        self._whole = tuple(np.concatenate(column) for column in zip(*self._parts, strict=True))
        return len(self._whole[0])

    def sample(self, rng: np.random.Generator) -> Batch:
        """A batch of finished decisions."""
        at = rng.integers(0, len(self._whole[0]), BATCH)
        seen, action, family, target, mask = (column[at] for column in self._whole)
        none, elite = np.zeros(BATCH, dtype=np.float32), np.zeros(BATCH, dtype=np.bool_)
        return Batch(seen, action, family, target, seen, mask, none, elite, none + 1.0, at)


def slower(agents: Agents, factor: float) -> None:
    """Lower the rates of all optimisers."""
    for optimiser in (agents.ddpg.actor_optimiser, agents.ddpg.critic_optimiser, agents.rainbow.optimiser):
        for group in optimiser.param_groups:
            group["lr"] *= factor


def main() -> None:
    """Train, report on problems that were left out, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[160, 60], help="problems of each round")
    parser.add_argument("--updates", type=int, nargs="+", default=[2000, 2000], help="training steps of each round")
    parser.add_argument("--episodes", type=int, default=120, help="for each situation")
    parser.add_argument("--left-out", type=int, default=30, help="problems to examine the policy on")
    parser.add_argument("--first-seed", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    began, rng = time.process_time(), np.random.default_rng(0)
    left_out = [each[:3] for each in courses(LEFT_OUT, args.left_out)]
    agents = Agents(0, ddpg=DDPGConfig(actor_delay=10**9))
    memory = Memory()
    seed = args.first_seed
    for number, (problems, updates) in enumerate(zip(args.problems, args.updates, strict=True)):
        for _, situation, problem, drawn in courses(seed, problems):
            memory.add(list(practise(agents if number else None, situation, problem, args.episodes, drawn)))
        seed += problems
        size = memory.gather()
        for step in range(updates):
            if step == updates // 4:
                agents.ddpg.config = DDPGConfig()
            if step in (updates // 2, 3 * updates // 4):
                slower(agents, 0.3)
            agents.learn(memory.sample(rng))
            if step % 1000 == 999 or step == updates - 1:
                told = examine(agents, left_out)
                spent = time.process_time() - began
                print(f"round {number}, {size} decisions, step {step + 1}, {spent:.0f} s: {told}", flush=True)
        slower(agents, 1.0 / 0.3)
        save_policy(args.out, agents)


if __name__ == "__main__":
    main()
