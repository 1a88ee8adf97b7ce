"""How many layer-steps a second the agents simulate on the surrogate, on one core.

    OMP_NUM_THREADS=1 python benchmarks/policy_speed.py
    OMP_NUM_THREADS=1 python benchmarks/policy_speed.py --layers 50 --episodes 512

A layer-step is one decision of one episode: observation, actor, Rainbow, draw. Printed are

    walk     decisions alone
    episode  the walk, the batched decode to a plan, the plan's energy with all couplings and its damage by one member of
             the ensemble: everything that a simulated reward takes (search/simulation.py)
    exact    the same with the solver's own decode for each plan, which knows couplings while it decodes

Seconds are processor time of this process, so that other work on the machine counts little. The best of several rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwc_onnx.search.agents import Agents
from hwc_onnx.search.decode import Decoder
from hwc_onnx.search.environment import Situation
from hwc_onnx.search.model import Model
from hwc_onnx.search.practice import uncertain
from hwc_onnx.search.simulation import Simulation
from hwc_onnx.search.study import run_search
from hwc_onnx.search.surrogate import DamageTable
from tests.search.synthetic import SyntheticProblem


def best_of(rounds: int, work: Callable[[], object]) -> float:
    """Processor seconds of the fastest round."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    problem = SyntheticProblem(layers=args.layers)
    history = run_search(problem, sampler="knapsack", trials=16).history
    model = Model(problem, DamageTable(problem), history, np.random.default_rng(0))
    decoder = Decoder(problem, problem.space)
    start = problem.start if history.best is None else history.best.choices
    situation = Situation(model, decoder, [start], 0.2, len(history))
    agents, simulation = Agents(0), Simulation(situation)
    rng = np.random.default_rng(0)
    explored = uncertain(situation, rng, args.episodes, 4)

    def episode() -> None:
        corrections, families, _ = agents.walk(situation, explored, 0.3, rng)
        plans = simulation.decode(corrections, families)
        simulation.credit(*simulation.outcome(plans, 1))

    few = explored[:16]

    def exact() -> None:
        corrections, families, _ = agents.walk(situation, few, 0.3, rng)
        for each, named in zip(corrections, families, strict=True):
            situation.gain(situation.decode(each, named))

    steps = explored.shape[1]
    print(f"{args.layers} layers, {steps} steps an episode, {args.episodes} episodes at once; layer-steps per second:")
    rates = {
        "walk": explored.size / best_of(args.rounds, lambda: agents.walk(situation, explored, 0.3, rng)),
        "episode": explored.size / best_of(args.rounds, episode),
        "exact": few.size / best_of(args.rounds, exact),
    }
    for name, rate in rates.items():
        print(f"{name:8s} {rate:10,.0f}")


if __name__ == "__main__":
    main()
