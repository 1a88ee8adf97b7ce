"""What the shipped policy is worth: the composite agent from scratch, with the policy, and the solver without agents.

    python benchmarks/policy.py FOLDER                             # resnet20 and vgg_small, 3 seeds, 512 search images
    python benchmarks/policy.py FOLDER --models mobilenetv2_small --accel bitfusion-32x16
    python benchmarks/policy.py FOLDER --made-up 12 --seeds 24     # networks of tests/search/synthetic.py with 12 layers
    python benchmarks/policy.py FOLDER --made-up 24 --interaction 1.5
    python benchmarks/policy.py FOLDER --policy some.safetensors   # another policy than the shipped one
    python benchmarks/policy.py FOLDER --table

Each strategy is a search of its own on the same samples with the same seeds, without refitted closing plans. Printed are
medians over seeds of the best accepted energy after 40 evaluations and at the end, relative to the INT8 baseline; the
geometric mean of energy over that of the first column's strategy on the same seed with its standard error; and in how many
seeds the policy within 40 evaluations reaches what the agent from scratch has at the end. The policy was trained on
neither these networks nor these seeds. Each result is a file of FOLDER, so that an interrupted run goes on.
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

from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.seed_run import SeedRun, SeedTask, config_of
from hwc_onnx.job.running import Running
from hwc_onnx.job.sampling import samples_of
from hwc_onnx.options import Options
from hwc_onnx.runfolder import RunFolder
from hwc_onnx.search.problem import Problem
from hwc_onnx.search.study import run_search
from tests.search.synthetic import SyntheticProblem

SAMPLES = Path(__file__).parent.parent / "sample_models"
STRATEGIES = ("knapsack", "scratch", "policy")
EARLY = 40


def searched(problem: Problem, strategy: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One search: how the best energy fell, and whose plans were measured."""
    sampler = "knapsack" if strategy == "knapsack" else "composite"
    policy = {"knapsack": None, "scratch": "none", "policy": args.policy}[strategy]
    found = run_search(problem, sampler=sampler, policy=policy, trials=args.trials, seed=seed, patience=0)
    if found.stopped_by == "interrupted":
        raise KeyboardInterrupt
    kept = found.history.searched()
    assert kept.best is not None
    return {
        "curve": [[int(count), float(energy)] for count, energy in kept.curve()],
        "origin": kept.best.origin,
        "policy_trials": sum(record.origin == "policy" for record in kept.records),
        "seconds": found.seconds,
    }


def run(name: str, seed: int, make: Callable[[], Problem], args: argparse.Namespace) -> None:
    """The searches of one network and seed that are not there yet."""
    for strategy in args.strategies:
        path = args.folder / f"{name}@{seed}@{strategy}.json"
        if not path.exists():
            row = searched(make(), strategy, seed, args)
            path.write_text(json.dumps(row))
            print(path.stem, f"{row['curve'][-1][1]:.4f}", row["origin"], f"{row['seconds']:.0f} s", flush=True)


def run_network(model: str, seed: int, args: argparse.Namespace) -> None:
    """All searches of one sample network; a seed decides the split of the data and the search."""
    options = Options(
        data=SAMPLES / "fashion_mnist.npz",
        accelerator=args.accel,
        trials=args.trials,
        max_drop=args.max_drop,
        search_samples=args.search_samples,
    )
    contest = Contest(("composite",), ("seeds",), 1, args.trials)
    job = SeedRun(SeedTask(SAMPLES / f"{model}.onnx", options, contest, seed, args.folder / f"{model}-{seed}"), None)
    data, splits = samples_of(job.opened, job.options, job.tell)
    digests = {"model": job.opened.loaded.digest, "data": splits.digest, "accelerator": job.profile.digest()}
    with RunFolder(job.task.folder, config_of(job.options, contest, digests)) as kept:
        running = Running(job, kept, data, splits)
        run(f"{model} {args.accel}", seed, running.objective, args)


def at(row: dict[str, Any], count: int) -> float:
    """The best energy after so many evaluations."""
    return min((energy for number, energy in row["curve"] if number <= count), default=1.0)


def table(folder: Path) -> None:
    """Medians and comparisons with the first strategy over the seeds that both have, one block for each network."""
    rows = {tuple(path.stem.split("@")): json.loads(path.read_text()) for path in sorted(folder.glob("*@*@*.json"))}
    for name in sorted({key[0] for key in rows}):
        end = sys.maxsize
        print(name)
        for strategy in STRATEGIES:
            seeds = [s for n, s, each in sorted(rows) if (n, each) == (name, strategy) and (n, s, STRATEGIES[0]) in rows]
            if not seeds:
                continue
            own = [rows[name, seed, strategy] for seed in seeds]
            early, late = ([at(row, count) for row in own] for count in (EARLY, end))
            told = f"  {strategy:<9} {len(seeds)} seeds  {EARLY}: {np.median(early):.4f}  end: {np.median(late):.4f}"
            for count, energies in ((EARLY, early), (end, late)):
                ratio = np.log(energies) - np.log([at(rows[name, seed, STRATEGIES[0]], count) for seed in seeds])
                told += f"  x{np.exp(ratio.mean()):.3f} ({ratio.std() / np.sqrt(len(seeds)):.3f})"
            lower, higher = int((ratio < -1e-9).sum()), int((ratio > 1e-9).sum())
            proposed = np.mean([row["policy_trials"] for row in own])
            print(f"{told}, lower in {lower}, higher in {higher}; policy's own trials {proposed:.1f}, best plans {sum(r['origin'] == 'policy' for r in own)}")
        both = [s for n, s, each in rows if (n, each) == (name, "policy") and (n, s, "scratch") in rows]
        if not both:
            continue
        pairs = [(at(rows[name, s, "policy"], EARLY), at(rows[name, s, "scratch"], end)) for s in both]
        reached = sum(early <= late + 1e-9 for early, late in pairs)
        ratio = np.exp(np.mean([np.log(early / late) for early, late in pairs]))
        print(f"  policy at {EARLY} against scratch at the end: x{ratio:.3f}, reached in {reached} of {len(both)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The composite agent from scratch, with a policy, and without agents.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet20", "vgg_small"])
    parser.add_argument("--made-up", type=int, help="layers of made-up networks, instead of --models")
    parser.add_argument("--interaction", type=float, default=0.5, help="how far damages of made-up networks do not add up")
    parser.add_argument("--accel", default="edge-flex")
    parser.add_argument("--policy", default="pretrained", help="policy file; left out, the shipped one")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--search-samples", type=int, default=512)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first_seed, args.first_seed + args.seeds) if not args.table else ():
        if args.made_up:
            name = f"made-up {args.made_up} layers interaction {args.interaction}"

            def make(seed: int = seed) -> SyntheticProblem:
                return SyntheticProblem(layers=args.made_up, seed=seed, interaction=args.interaction)

            run(name, seed, make, args)
            continue
        for model in args.models:
            run_network(model, seed, args)
    table(args.folder)


if __name__ == "__main__":
    main()
