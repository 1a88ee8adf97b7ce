"""What each part of the composite agent is worth: searches with one part left out, on the same networks and seeds.

    python benchmarks/ablations.py FOLDER                              # made-up networks, 12 layers, 12 seeds, 44 evaluations
    python benchmarks/ablations.py FOLDER --layers 24 --interaction 1.5
    python benchmarks/ablations.py FOLDER --table

full              the agent as `compress` runs it, from scratch
no agents         surrogate, solver and local search
no local search   surrogate, solver and agents
DDPG alone        families are the solver's choice
Rainbow alone     no corrections of damages
untrained         agents that never learn: random exploration through the same choice by expected improvement
no imitation      DDPG without imitation of the best trials
by acceptance     no trial is chosen by energy and damage together
no first plans    begins with INT8 alone
positions         the agents alone on menus of each algorithm, practising on the surrogate, then the local search
faithful          raw actions and real episodes only
no surrogate      `evolution`: mutations of good plans, from the same first plans

Networks are those of tests/search/synthetic.py; closing plans are left out. Energies are of the plan that the final gate would let
pass, with 20,000 unseen images as its holdout: medians relative to INT8. The ratio to `full` is the geometric mean over seeds with its
standard error (above 1: worse without the part). Each result is a file of FOLDER, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hwc_onnx.search.composite import Composite, CompositeConfig
from hwc_onnx.search.gate import MOST_LOOKS
from hwc_onnx.search.history import Record
from hwc_onnx.search.ladder import Ladder
from hwc_onnx.search.problem import Problem
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem

CONFIGS = {
    "full": CompositeConfig(),
    "no agents": CompositeConfig(policy=False),
    "no local search": CompositeConfig(local=False),
    "DDPG alone": CompositeConfig(names=False),
    "Rainbow alone": CompositeConfig(corrects=False),
    "untrained": CompositeConfig(updates=0),
    "no imitation": CompositeConfig(imitation=0.0),
    "by acceptance": CompositeConfig(gaining=0.0),
    "no first plans": CompositeConfig(),
}
SAMPLERS = {"positions": "positions", "faithful": "faithful", "no surrogate": "evolution"}
VARIANTS = (*CONFIGS, *SAMPLERS)


def agent(name: str) -> Callable[..., Composite]:
    """A factory as `--sampler module:attribute` takes it."""

    def make(problem: Problem, seed: int, trials: int, folder: Path | None) -> Composite:
        return Composite(problem, seed, trials, folder, CONFIGS[name])

    return make


FACTORIES = {name.replace(" ", "_"): agent(name) for name in CONFIGS}
globals().update(FACTORIES)


def searched(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One search: the energy of the plan that passes and who proposed it."""
    problem = SyntheticProblem(layers=args.layers, seed=seed, interaction=args.interaction)
    sampler = SAMPLERS.get(name, f"{__name__}:{name.replace(' ', '_')}")
    cold = name in ("no first plans", "faithful")
    found = run_search(
        problem, sampler=sampler, trials=args.trials, seed=seed, patience=0, start="cold" if cold else "seeds"
    )
    if found.stopped_by == "interrupted":
        raise KeyboardInterrupt
    passed: Record | None = None
    for record in Ladder.of(found.history.searched(), problem.start).climbed(MOST_LOOKS):
        if problem.unseen_drop(record.choices) > problem.limit_points:
            break
        passed = record
    return {
        "energy": 1.0 if passed is None else passed.outcome.energy,
        "origin": "seed" if passed is None else passed.origin,
        "seconds": found.seconds,
    }


def table(folder: Path) -> None:
    """Each variant beside `full` on the seeds that both have."""
    rows = {tuple(path.stem.split("@")): json.loads(path.read_text()) for path in folder.glob("*@*@*.json")}
    for network in sorted({key[0] for key in rows}):
        print(network)
        for name in VARIANTS:
            seeds = [seed for where, seed, each in rows if (where, each) == (network, name) and (network, seed, "full") in rows]
            if not seeds:
                continue
            own = np.array([rows[network, seed, name]["energy"] for seed in seeds])
            ratio = np.log(own) - np.log([rows[network, seed, "full"]["energy"] for seed in seeds])
            better, worse = int((ratio < -1e-9).sum()), int((ratio > 1e-9).sum())
            policy = sum(rows[network, seed, name]["origin"] == "policy" for seed in seeds)
            print(
                f"  {name:<16} {len(seeds):>2} seeds  {np.median(own):.3f}  x{np.exp(ratio.mean()):.3f} "
                f"({ratio.std() / np.sqrt(len(seeds)):.3f})  lower in {better}, higher in {worse}; best plan the agents' in {policy}"
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The composite agent with one part left out.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--interaction", type=float, default=0.5, help="how far damages do not add up")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--trials", type=int, default=44)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    network = f"made-up, {args.layers} layers, interaction {args.interaction:g}, {args.trials} evaluations"
    for seed in range(args.seeds) if not args.table else ():
        for name in args.variants:
            path = args.folder / f"{network}@{seed}@{name}.json"
            if not path.exists():
                row = searched(name, seed, args)
                path.write_text(json.dumps(row))
                print(f"{path.stem}: {row['energy']:.4f} {row['origin']} {row['seconds']:.0f} s", flush=True)
    table(args.folder)


if __name__ == "__main__":
    main()
