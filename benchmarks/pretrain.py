"""Trains the policy that the package ships, on made-up networks whose true damage is known.

    python benchmarks/pretrain.py --problems 400 --out hwc_onnx/search/policy.safetensors

Each problem has its own depth, damage curves, errors of the damage table, pairwise interactions, accelerator (what widths,
zeros and channels save, how energy is shared out) and drop limit. A few trials are made up, the surrogate is fitted to
them, and the agents' episodes are decoded around the solver's plan. Their reward is by the *true* outcome: energy saved
plus true damage spared at the solver's rate. What is learned is how to correct an early surrogate.

Every tenth problem is not trained on: there the policy's own plan is compared with the solver's, both decoded exactly. It
prints the mean true advantage (in percent of the INT8 baseline's energy, damage at the solver's rate) and how often the
policy's plan is the better one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.history import History, Record
from hwc_onnx.search.model import Model
from hwc_onnx.search.policy import save_policy
from hwc_onnx.search.practice import decisions, uncertain
from hwc_onnx.search.problem import Choices
from hwc_onnx.search.replay import Replay
from hwc_onnx.search.seeds import seed_plan
from hwc_onnx.search.simulation import Simulation
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem

FINE = ("magnitude", "sensitivity", "wanda", "obs")
COARSE = ("l1", "l2", "fpgm", "reconstruct", "gram")
EPISODES = 96
BATCH = 512
HELD_OUT = 10


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


def practise(agents: Agents, situation: Situation, problem: SyntheticProblem, sigma: float, rng: np.random.Generator) -> None:
    """Episodes around the present policy, credited by what they truly do."""
    explored = uncertain(situation, rng, EPISODES, int(rng.integers(3, 7)))
    where = np.concatenate([np.zeros((1, explored.shape[1]), dtype=np.bool_), explored])
    moved, named, seen = agents.walk(situation, where, sigma, rng)
    simulation = Simulation(situation)
    plans = simulation.decode(moved, named)
    energy, _ = simulation.outcome(plans, 0)
    credit = simulation.credit(energy, truth(problem, plans))
    for i in range(1, len(plans)):
        agents.store_simulated(decisions(situation, moved[i], named[i], seen[i], where[i], float(credit[i - 1])))


def truth(problem: SyntheticProblem, plans: NDArray[np.int64]) -> NDArray[np.float64]:
    """True log damages, [plans]."""
    return np.log([max(problem.true_damage(plan), 1e-7) for plan in plans])


def advantage(agents: Agents, situation: Situation, problem: SyntheticProblem) -> float:
    """True advantage of the policy's plan over the solver's, as a share of the baseline's energy."""
    played = situation.decode(*agents.mean_policy(situation))
    damage = truth(problem, np.array([situation.zero.choices, played.choices]))
    return float(situation.zero.energy - played.energy + situation.exchange * (damage[0] - damage[1]))


def main() -> None:
    """Train, report on problems that were left out, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--first-seed", type=int, default=100_000)
    parser.add_argument("--updates", type=int, default=12, help="training steps for each situation")
    parser.add_argument("--seconds", type=float, help="stop after this time, if earlier")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    agents = Agents(0)
    agents.simulated = Replay(30_000)
    began, recent = time.monotonic(), []
    for number in range(args.problems):
        if args.seconds is not None and time.monotonic() - began > args.seconds:
            break
        problem = GeneratedProblem(args.first_seed + number)
        rng = np.random.default_rng([args.first_seed + number, 78])
        course = Course(problem, rng)
        sigma = 0.5 - 0.3 * number / args.problems
        for _ in range(5):
            situation = course.situation()
            if number % HELD_OUT == HELD_OUT - 1:
                recent.append(advantage(agents, situation, problem))
            else:
                practise(agents, situation, problem, sigma, rng)
                agents.train(args.updates, rng, BATCH)
            course.grow(situation.zero.choices, int(rng.integers(3, 12)))
        if number % 50 == 49 and recent:
            last = np.array(recent[-50:])
            print(
                f"{number + 1} problems, {time.monotonic() - began:.0f} s: advantage {100 * last.mean():+.3f} % "
                f"(standard error {100 * last.std() / np.sqrt(len(last)):.3f}), better in {np.mean(last > 0):.0%}",
                flush=True,
            )
            save_policy(args.out, agents)
    save_policy(args.out, agents)


if __name__ == "__main__":
    main()
